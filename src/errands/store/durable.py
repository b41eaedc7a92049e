"""Runs that were sent through the outbox and have not ended: what is needed to send them again.

The row in the outbox is the promise. It is written in the application's transaction, and deleted in the one
in which the ledger learns that the run has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, Row, Select, delete, func, select

from errands.core.states import FINAL, State
from errands.store.bulk import dialect_of
from errands.store.rows import OutboxRow
from errands.store.tables import attempts, outbox, runs

_ENDED = frozenset(state.value for state in FINAL)
_RETRYING = State.RETRYING.value


@dataclass(frozen=True, slots=True)
class Watched:
    """A row of the outbox that was sent, beside what the ledger knows of its run.

    `state` is None where the ledger has not heard of the run; `since` is when it was due, or sent.
    """

    id: str
    since: datetime
    state: str | None

    @property
    def ended(self) -> bool:
        """Whether the ledger knows the run's end."""
        return self.state in _ENDED


@dataclass(frozen=True, slots=True)
class Lost:
    """A run to be sent again: its row, with the attempts that it had, and who was at it last."""

    row: OutboxRow
    state: str | None
    worker: str | None
    started_at: datetime | None


def watched(connection: Connection, after_id: str, sent_before: datetime, limit: int) -> list[Watched]:
    """The next rows, by id, that were sent before `sent_before`."""
    query = (
        select(outbox.c.id, outbox.c.sent_at, outbox.c.eta, runs.c.state, runs.c.eta.label("run_eta"))
        .select_from(outbox.outerjoin(runs, runs.c.id == outbox.c.id))
        .where(outbox.c.id > after_id, outbox.c.sent_at <= sent_before)
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [
        Watched(row.id, max(filter(None, (row.sent_at, row.eta, row.run_eta))), row.state)
        for row in connection.execute(query)
    ]


def lost(connection: Connection, run_ids: Sequence[str]) -> list[Lost]:
    """Those of `run_ids` that are in the outbox, were sent, and have not ended as far as the ledger knows."""
    columns = [runs.c.state, runs.c.attempt, runs.c.worker, runs.c.started_at, runs.c.eta]
    query: Select[tuple[object, ...]] = (
        select(outbox, *(column.label(f"run_{column.name}") for column in columns))
        .select_from(outbox.outerjoin(runs, runs.c.id == outbox.c.id))
        .where(outbox.c.id.in_(run_ids), outbox.c.sent_at.is_not(None))
        .order_by(outbox.c.id)
    )
    rows = [row for row in connection.execute(query) if row.run_state not in _ENDED]
    failed = _failed(connection, [row.id for row in rows if row.run_attempt])
    return [
        Lost(_row(row, failed.get(row.id, 0)), row.run_state, row.run_worker, row.run_started_at)
        for row in rows
    ]


def forget_ended(connection: Connection, run_ids: list[str]) -> None:
    """Delete the rows of runs that have ended. Rows that somebody works on just now stay; `beat/durable.py`
    finds them."""
    if not run_ids or connection.scalar(select(outbox.c.id).limit(1)) is None:
        return
    found = [row[0] for row in dialect_of(connection).select(connection, "id", outbox.name, "id", run_ids)]
    if found:
        free = select(outbox.c.id).where(outbox.c.id.in_(found)).with_for_update(skip_locked=True)
        connection.execute(delete(outbox).where(outbox.c.id.in_(free)))


def _failed(connection: Connection, run_ids: list[str]) -> dict[str, int]:
    """How many attempts at each run failed and were followed by another one."""
    query = (
        select(attempts.c.run_id, func.count())
        .where(attempts.c.run_id.in_(run_ids), attempts.c.outcome == _RETRYING)
        .group_by(attempts.c.run_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _row(row: Row[tuple[object, ...]], failed: int) -> OutboxRow:
    values = {name: value for name, value in row._mapping.items() if not str(name).startswith("run_")}
    found = OutboxRow(**values)
    if row.run_state == _RETRYING:  # the next attempt may start when it was to
        found = replace(found, eta=row.run_eta)
    return replace(found, attempt=row.run_attempt or 0, failed=failed)
