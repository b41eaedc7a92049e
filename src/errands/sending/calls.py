"""A call on its way: how it is given, what is committed, what Celery's signals tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery import signals
from celery.canvas import Signature

from errands.broker.message import Message
from errands.broker.runs import Operation
from errands.core.errors import InvalidArguments
from errands.sending.terms import Terms


@dataclass(slots=True)
class Call:
    """One call, ready to be committed."""

    terms: Terms
    run_id: str
    operation: Operation
    parent: Any
    goes_on: bool  # with a run that is known: a retry, a snooze, a replacement
    size: int  # bytes of the message
    message: Message | None  # kept where somebody listens to Celery's signals
    duplicate: bool = False  # `run_id` is that of the run that was there already


def tell_before(terms: Terms, message: Message, queue: Any) -> None:
    """Send Celery's `before_task_publish`, whose receivers may change the message."""
    payload = message.payload
    body = (payload.args, payload.kwargs, dict(message.follows))
    signals.before_task_publish.send(
        sender=terms.name, body=body, exchange="", routing_key=terms.queue, declare=[queue],
        headers=message.headers, properties=message.properties, retry_policy={},
    )  # fmt: skip
    message.changed(*body)


def somebody_listens() -> bool:
    """Whether anybody wants to know what was sent."""
    return bool(signals.after_task_publish.receivers or signals.task_sent.receivers)


def tell_after(call: Call) -> None:
    """Send Celery's `after_task_publish` and `task_sent` where somebody listens."""
    message, name = call.message, call.terms.name
    if message is None:
        return
    body = (message.payload.args, message.payload.kwargs, message.follows)
    if signals.after_task_publish.receivers:
        signals.after_task_publish.send(
            sender=name, body=body, headers=message.headers, exchange="", routing_key=call.terms.queue
        )
    if signals.task_sent.receivers:
        signals.task_sent.send(
            sender=name, task_id=call.run_id, task=name, args=body[0], kwargs=body[1],
            eta=message.headers["eta"], taskset=message.headers["group"],
        )  # fmt: skip


def read_call(task: str, given: Any) -> tuple[Any, Any, dict[str, Any]]:
    """One of the calls that `delay_many` is given: its args, its kwargs, and options of its own.

    Raises:
        InvalidArguments: it is nothing that can be a call.
    """
    if isinstance(given, Signature):
        if given.task != task:
            raise InvalidArguments(task, [f"this is a signature of {given.task}"])
        return given.args, given.kwargs, dict(given.options)
    if isinstance(given, Mapping):
        return (), given, {}
    if isinstance(given, tuple | list):
        return given, {}, {}
    raise InvalidArguments(
        task,
        [
            f"a call is a tuple of arguments, a mapping of named ones or a signature of the task, not "
            f"{type(given).__name__}: for one argument, write a tuple of one, ({str(given)[:40]!r},)"
        ],
    )
