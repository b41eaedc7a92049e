"""A batch as a value: how many runs were counted, how they ended, and which batch the calling code fills."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from errands.core.states import State

BATCH_TASK = "errands.batch"  # under this name the ledger keeps batches, which are runs without a worker
MOST_FAILED_IDS = 1_000
HOUR = 3600.0
WEEK = 7 * 24 * HOUR


class Membership(NamedTuple):
    """The batch that runs are sent into.

    Args:
        id: the batch's.
        root_id: the run at the top of the tree that the batch is part of.
        on_commit: it is sent with a transaction, and so are its members.
    """

    id: str
    root_id: str
    on_commit: bool = False


# Runs that are sent in this context belong to it.
filling: ContextVar[Membership | None] = ContextVar("errands_batch", default=None)


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is. A task that follows a batch asks for it by type: `outcome: BatchStatus`.

    Attributes:
        id: the batch's id: that of its run in the ledger.
        name: what it is called.
        state: `running`, and at its end `succeeded`, `failed` or `revoked`.
        total: members that were sent so far.
        succeeded: members that have succeeded.
        failed: members that have ended in another way: failed, discarded, revoked, expired.
        open: more members may come: the block of its maker has not ended.
        failed_ids: ids of those that did not succeed, the first 1,000.
        fault: why the batch fails whatever its members do (its block raised, its sender fell silent), or "".
    """

    id: str
    name: str
    state: State
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    open: bool = False
    failed_ids: tuple[str, ...] = ()
    fault: str = ""

    @property
    def done(self) -> int:
        """Members that have ended, however."""
        return self.succeeded + self.failed

    @property
    def pending(self) -> int:
        """Members that have not ended."""
        return max(0, self.total - self.done)

    @property
    def percentage(self) -> int:
        """Of the members sent so far, how many have ended, 0 to 100; a batch without members is at 100."""
        return min(100, 100 * self.done // self.total) if self.total else 100

    @property
    def progress(self) -> dict[str, object]:
        """The same, as a run tells its progress."""
        note = f"{self.failed} failed" if self.failed else ""
        return {"current": self.done, "total": self.total, "percentage": self.percentage, "note": note}


def outcome_of(status: BatchStatus) -> tuple[State, str]:
    """The state in which a batch ends that is over now, and what is wrong with it, in words ("" nothing)."""
    if status.state is not State.RUNNING:
        return status.state, status.fault
    if status.fault:
        return State.FAILED, status.fault
    if status.failed:
        return State.FAILED, f"{status.failed} of {status.total} runs did not succeed"
    return State.SUCCEEDED, ""
