"""What a caller hears when a run was not sent: what happened, whether it was accepted, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import redis
from amqp.exceptions import MessageNacked

from errands.broker.checks import place
from errands.broker.errors import BrokerDown, NotHeard
from errands.core.errors import InvalidArguments, SecretError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from errands.sending.calls import Call


def of_broker(exc: Exception, calls: Sequence[Call], before: int, url: str) -> BrokerDown:
    """The error for calls that the broker at `url` did not take, or not that anybody knew of.

    Args:
        before: how many calls of a bulk were accepted before these.
    """
    name, run_id = calls[0].terms.name, calls[0].run_id
    one = len(calls) == 1 and not before
    what = f"{name}[{run_id}]" if one else f"{name}: calls {before} to {before + len(calls) - 1}"
    after = f" The {before} calls before them were accepted." if before else ""
    where = f"the broker at {place(url)}"
    if isinstance(exc, NotHeard):
        again = (
            f"Sending it again with task_id={run_id!r} is safe"
            if one
            else "Sending them again is safe where each has a task_id of its own"
        )
        return BrokerDown(
            f"{what}: {where} was told and did not answer ({exc}); it is not known whether "
            f"{'it' if one else 'they'} will run.{after} {again}: an id is accepted once"
        )
    problem = "refused" if isinstance(exc, redis.ResponseError) else "does not answer"
    were, nothing, them = ("was", "nothing was", "it") if one else ("were", "none of them was", "them")
    return BrokerDown(
        f"{what} {were} not sent: {where} {problem} ({exc}); {nothing} accepted.{after} Try again later, or "
        f"send {them} with delay_on_commit, whose outbox waits for it"
    )


def of_celery(exc: Exception, name: str, url: str) -> BrokerDown:
    """The error for a run that Celery could not send."""
    if isinstance(exc.__cause__, TimeoutError):
        return BrokerDown(
            f"{name}: the broker at {place(url)} did not answer in time ({exc}); it is not known whether it "
            "will run. A call that names its task_id may be sent again with it: an id is accepted once"
        )
    refused = isinstance(exc, MessageNacked) or isinstance(exc.__cause__, MessageNacked)
    problem = "refused it" if refused else f"does not answer ({exc})"
    return BrokerDown(
        f"{name} was not sent: the broker at {place(url)} {problem}. Try again later, or send it with "
        "delay_on_commit, whose outbox waits for it"
    )


def of_call(exc: InvalidArguments | SecretError, index: int, accepted: int) -> InvalidArguments | SecretError:
    """The error for one call of a bulk, named by its place among them (from 0)."""
    rest = f"{accepted} calls before it were accepted"
    if isinstance(exc, InvalidArguments):
        return type(exc)(exc.task, [*(f"call {index}: {problem}" for problem in exc.problems), rest])
    return SecretError(f"call {index}: {exc}; {rest}")
