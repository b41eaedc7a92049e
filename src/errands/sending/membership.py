"""Which batch a call joins: that of the block it is made in, or that of the run it goes on with."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from errands.core.batches import Membership, filling
from errands.core.errors import ActionRefused
from errands.worker.starting import envelope_of

if TYPE_CHECKING:
    from errands.sending.calls import Call

OUTSIDE = Membership("", "")  # what is sent meanwhile belongs to no batch, whoever sends it

# Calls that are made in this context are collected here, and not committed.
collected: ContextVar[list[Call] | None] = ContextVar("errands_collected", default=None)


class NotDirect(Exception):
    """A call that was to be collected is one that Celery has to send."""


def batch_of_call(
    name: str, errands: dict[str, Any], parent: Any, parent_id: str | None, task_id: str | None
) -> Membership | None:
    """The batch that a call joins; None for most.

    Besides what is sent in a batch's block, members are what Celery sends after a member: the next link of a
    chain, a callback, the body of a chord. They join before the run that sends them ends, so a batch never
    takes a chain for done between two of its links.

    Args:
        name: of the task.
        errands: the header `errands` of its message.
        parent: the task that sends, if one does.
        parent_id: the parent that the call names itself, as Celery does for what follows a run.
        task_id: the id that it names itself.

    Raises:
        ActionRefused: it is sent at once, and the batch that the block fills is sent with a transaction.
    """
    if "hop" in errands or name.startswith("celery."):
        return None
    given = errands.get("batch")
    if given is not None:
        return Membership(given, "")
    batch = filling.get()
    if batch is OUTSIDE:
        return None
    if batch is not None:
        if batch.on_commit:
            raise ActionRefused(
                f"{name}: a batch of a transaction is sent with it, and so are its members: use "
                "delay_on_commit(session, …) in its block, or app.batch(…) for runs that are sent at once"
            )
        return batch
    if parent is None:
        return None
    inherited = envelope_of(parent.request).get("batch")
    if inherited is None or not (parent_id or _is_body(parent.request.chord, task_id)):
        return None
    return Membership(inherited, "")


def member_on_commit(name: str) -> dict[str, str]:
    """What the row of a call says, if it is made in the block of a batch that is sent with a transaction.

    Raises:
        ActionRefused: the block's batch is sent at once.
    """
    batch = filling.get()
    if batch is None or batch is OUTSIDE:
        return {}
    if not batch.on_commit:
        raise ActionRefused(
            f"{name}: the members of this batch are sent at once, and it may have ended before the "
            "transaction does; use app.batch_on_commit(session, …)"
        )
    return {"batch": batch.id, "parent_id": batch.id, "root_id": batch.root_id}


def _is_body(chord: Any, task_id: str | None) -> bool:
    return bool(task_id and chord) and (chord.get("options") or {}).get("task_id") == task_id
