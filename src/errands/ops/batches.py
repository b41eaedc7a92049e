"""Batches as people see them: runs whose progress is counted, and whose members are found below them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import redis
from sqlalchemy.exc import SQLAlchemyError

from errands.broker.runs import Verdict
from errands.core import clock
from errands.core.batches import BATCH_TASK, BatchStatus
from errands.core.errors import ActionRefused
from errands.core.events import Event, Kind
from errands.core.states import OPEN
from errands.ops.host import App
from errands.ops.probes import broker_errors
from errands.ops.run_view import RunView
from errands.store import reads
from errands.store.rows import RunFilter, RunRow

_CHUNK = 500
_SHOWN = 100


def is_batch(view: RunView) -> bool:
    """Whether a run is a batch."""
    return view.task == BATCH_TASK


def status(app: App, view: RunView) -> BatchStatus | None:
    """What is counted of a batch; None where Valkey does not answer, or has forgotten it."""
    try:
        found: BatchStatus | None = app.batches.status(view.id)
    except redis.RedisError:
        return None
    return found


def counted(app: App, view: RunView) -> RunView:
    """A batch with its progress as it is now: what was told of it last may be a moment old."""
    found = status(app, view) if is_batch(view) and not view.state.final else None
    return view if found is None else replace(view, progress=dict(found.progress))


def as_dict(app: App, view: RunView) -> dict[str, Any]:
    """What a batch tells beside what every run does."""
    found = status(app, view)
    counts = {"name": (view.message[0] or [""])[0] if view.message else ""}
    if found is None:  # forgotten: the ledger has the counts of its end
        return counts | (view.result if isinstance(view.result, dict) else {})
    return counts | {
        "total": found.total,
        "succeeded": found.succeeded,
        "failed": found.failed,
        "pending": found.pending,
        "open": found.open,
        "failed_ids": list(found.failed_ids),
        "fault": found.fault,
    }


def children(app: App, run_id: str) -> list[dict[str, Any]]:
    """The runs that a run started, or that belong to a batch: the first 100 that the ledger knows."""
    try:
        with app.database.reading() as connection:
            rows = reads.children(connection, run_id, _SHOWN)
    except SQLAlchemyError:
        return []  # the run itself was found; those below it come later
    return [{"task_id": row.id, "task": row.task, "state": row.state.value} for row in rows]


def revoke(app: App, batch_id: str, note: str) -> None:
    """Let nothing of a batch start any more.

    A member that waits is revoked when a worker takes its message; see `revoke_members` for those that the
    ledger knows.

    Raises:
        ActionRefused: it has ended already.
        BrokerUnavailable: Valkey does not answer.
    """
    with broker_errors():
        if not app.batches.revoke(batch_id, note):
            raise ActionRefused("the batch has ended already")


def revoke_members(app: App, batch_id: str) -> int:
    """Revoke the members that the ledger knows to be waiting, those that are due later included. Returns how
    many."""
    states = tuple(sorted(OPEN - {"running"}))
    count, before = 0, None
    while True:
        with app.database.reading() as connection:
            rows = reads.runs(connection, RunFilter(parent_id=batch_id, states=states), _CHUNK, before)
        count += sum(_revoke(app, row) for row in rows)
        if len(rows) < _CHUNK:
            return count
        before = rows[-1].cursor


def _revoke(app: App, row: RunRow) -> bool:
    event = Event(
        kind=Kind.REVOKED, run_id=row.id, at=clock.timestamp(), task=row.task, queue=row.queue,
        owner=row.owner, note="its batch was revoked",
    )  # fmt: skip
    with broker_errors():
        live = app.live.get(row.id)
        if live is not None and live.state.value == "running":
            return False
        return app.live.record(event).verdict is Verdict.OK
