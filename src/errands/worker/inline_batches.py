"""Batches in the memory of this process, for inline mode and tests: the rules of `broker/lua/batch.lua`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from errands.broker.batch_counts import Opening
from errands.core import clock
from errands.core.batches import BATCH_TASK, MOST_FAILED_IDS, BatchStatus, outcome_of
from errands.core.events import Event, Kind
from errands.core.states import State

_MOST_BATCHES = 1_000
_KIND = {State.SUCCEEDED: Kind.SUCCEEDED, State.FAILED: Kind.FAILED}

Send = Callable[[str, dict[str, list[Any]]], None]


@dataclass(slots=True)
class _Kept:
    status: BatchStatus
    opening: Opening | None  # None: its members came first, with a transaction
    followed: bool = False


class InlineBatches:
    """Counts as `BatchCounts` and its script do, for the runs of `InlineRuns`; the newest 1,000 batches.

    Args:
        tell: writes an event.
    """

    def __init__(self, tell: Callable[[Event], object]) -> None:
        self._tell = tell
        self._kept: dict[str, _Kept] = {}
        self._batch_of: dict[str, str] = {}
        self._follows: dict[str, str] = {}
        self.send: Send | None = None

    # -- what is done to a batch

    def open(self, batch: Opening, member_of: str | None = None) -> bool:
        """As `BatchCounts.open`."""
        self._forget_oldest()
        known = self._kept.get(batch.id)
        if known is not None and (known.followed or known.status.state.final):
            return False
        status = known.status if known else BatchStatus(batch.id, "", State.RUNNING)
        self._kept[batch.id] = _Kept(replace(status, name=batch.name, open=not batch.closed), batch)
        if member_of is not None:
            self.join(batch.id, member_of)
        if known is None or known.opening is None:
            self._tell(batch.event())
        self._look_whether_over(batch.id)
        return True

    def close(self, batch_id: str, fault: str = "") -> None:
        """As `BatchCounts.close`."""
        kept = self._kept.get(batch_id)
        if kept is not None and kept.status.open:
            kept.status = replace(kept.status, open=False, fault=fault)
            self._look_whether_over(batch_id)

    def revoke(self, batch_id: str, note: str) -> bool:
        """As `BatchCounts.revoke`."""
        kept = self._kept.get(batch_id)
        if kept is None or kept.status.state.final:
            return False
        kept.status = replace(kept.status, state=State.REVOKED, open=False, fault=note)
        now = clock.timestamp()
        self._tell(Event(kind=Kind.REVOKED, run_id=batch_id, at=now, task=BATCH_TASK, note=note))
        self._look_whether_over(batch_id)
        return True

    def status(self, batch_id: str) -> BatchStatus | None:
        """As `BatchCounts.status`."""
        kept = self._kept.get(batch_id)
        return kept.status if kept is not None else None

    def root_of(self, batch_id: str) -> str | None:
        """As `BatchCounts.root_of`."""
        kept = self._kept.get(batch_id)
        return kept.opening.root_id if kept is not None and kept.opening is not None else None

    def followed_by(self, run_id: str) -> str | None:
        """As `BatchCounts.followed_by`."""
        return self._follows.get(run_id)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._batch_of.clear()
        self._follows.clear()

    def _forget_oldest(self) -> None:
        if len(self._kept) < _MOST_BATCHES:
            return
        for batch_id in list(self._kept)[: _MOST_BATCHES // 10]:
            del self._kept[batch_id]
        for known in (self._batch_of, self._follows):
            for run_id in [run_id for run_id, batch_id in known.items() if batch_id not in self._kept]:
                del known[run_id]

    # -- what is heard of its members

    def batch_of(self, run_id: str) -> str | None:
        """The batch that a run is a member of."""
        return self._batch_of.get(run_id)

    def over(self, batch_id: str) -> bool:
        """Whether the batch takes no more members."""
        kept = self._kept.get(batch_id)
        return kept is not None and (kept.followed or kept.status.state.final)

    def join(self, run_id: str, batch_id: str) -> None:
        """The run is a member of the batch from now on."""
        if self.over(batch_id) or run_id in self._batch_of:
            return
        if batch_id not in self._kept:
            self._kept[batch_id] = _Kept(BatchStatus(batch_id, "", State.RUNNING, open=True), None)
        kept = self._kept[batch_id]
        self._batch_of[run_id] = batch_id
        kept.status = replace(kept.status, total=kept.status.total + 1)

    def is_revoked(self, run_id: str) -> bool:
        """Whether the run must not start, since its batch was revoked."""
        kept = self._kept.get(self._batch_of.get(run_id, ""))
        return kept is not None and kept.status.state is State.REVOKED

    def heard(self, run_id: str, before: State | None, after: State | None) -> None:
        """A run has moved from one state to another."""
        kept = self._kept.get(self._batch_of.get(run_id, ""))
        if kept is None or after is None:
            return
        if before is not None and before.final and not after.final:
            self._count(kept, run_id, before, -1)
        elif after.final and not (before is not None and before.final):
            self._count(kept, run_id, after, 1)
            self._look_whether_over(kept.status.id)

    def _count(self, kept: _Kept, run_id: str, state: State, step: int) -> None:
        status = kept.status
        if state is State.SUCCEEDED:
            kept.status = replace(status, succeeded=status.succeeded + step)
            return
        failed = [failed_id for failed_id in status.failed_ids if failed_id != run_id]
        if step > 0:
            failed.append(run_id)
        ids = tuple(failed[:MOST_FAILED_IDS])
        kept.status = replace(status, failed=status.failed + step, failed_ids=ids)

    def _look_whether_over(self, batch_id: str) -> None:
        kept = self._kept[batch_id]
        status = kept.status
        now = clock.timestamp()
        if status.open or kept.followed or status.pending or kept.opening is None:
            told = Event(kind=Kind.PROGRESS, run_id=batch_id, at=now, progress=dict(status.progress))
            if status.state is State.RUNNING and status.total and kept.opening is not None:
                self._tell(told)
            return
        kept.followed = True
        state, text = outcome_of(status)
        if status.state is State.RUNNING:
            kept.status = replace(status, state=state)
            error = {"type": "BatchFailed", "message": text} if state is State.FAILED else None
            counts = {"total": status.total, "succeeded": status.succeeded, "failed": status.failed}
            self._tell(
                Event(
                    kind=_KIND[state], run_id=batch_id, at=now, task=BATCH_TASK, attempt=1, result=counts,
                    progress=dict(status.progress), error=error,
                )
            )  # fmt: skip
        following = {"on_complete": list(kept.opening.follow_ups.on_complete)}
        if state is State.SUCCEEDED:
            following = {"on_success": list(kept.opening.follow_ups.on_success), **following}
        if self.send is not None:
            self.send(batch_id, following)

    def follows(self, run_id: str, batch_id: str) -> None:
        """Note that a run follows a batch."""
        self._follows[run_id] = batch_id
