"""Everything that is read from Errands' tables.

Each function takes a connection and returns frozen values. From asyncio code:
`async with database.async_reading() as connection: await connection.run_sync(reads.run, run_id)`.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, or_, select, tuple_

from errands.core import clock
from errands.core.states import State
from errands.store.fold import BUCKETS
from errands.store.rows import AttemptRow as AttemptRow
from errands.store.rows import AuditRow as AuditRow
from errands.store.rows import Counters as Counters
from errands.store.rows import DeadLetterRow as DeadLetterRow
from errands.store.rows import Histogram as Histogram
from errands.store.rows import OutboxRow as OutboxRow
from errands.store.rows import RunFilter as RunFilter
from errands.store.rows import RunRow as RunRow
from errands.store.tables import attempts as attempts_table
from errands.store.tables import audit as audit_table
from errands.store.tables import counters as counters_table
from errands.store.tables import dead_letters as dead_letters_table
from errands.store.tables import durations as durations_table
from errands.store.tables import outbox
from errands.store.tables import runs as runs_table


def run(connection: Connection, run_id: str) -> RunRow | None:
    """The run with this id."""
    row = connection.execute(select(runs_table).where(runs_table.c.id == run_id)).first()
    return _run(row) if row else None


def attempts(connection: Connection, run_id: str) -> list[AttemptRow]:
    """All attempts of a run, the first one first."""
    query = select(attempts_table).where(attempts_table.c.run_id == run_id).order_by(attempts_table.c.number)
    return [AttemptRow(**row._mapping) for row in connection.execute(query)]


def runs(
    connection: Connection, filters: RunFilter | None = None, limit: int = 50, before: str | None = None
) -> list[RunRow]:
    """Runs, the newest first.

    Args:
        connection: from `Database.reading`.
        filters: which ones; all by default.
        limit: how many at most.
        before: go on after the run whose `cursor` this is.

    Raises:
        ValueError: `before` is no cursor.
    """
    query = _filtered(select(runs_table), filters or RunFilter())
    if before is not None:
        at, _, run_id = before.partition("~")
        query = query.where(
            tuple_(runs_table.c.created_at, runs_table.c.id) < (datetime.fromisoformat(at), run_id)
        )
    query = query.order_by(runs_table.c.created_at.desc(), runs_table.c.id.desc()).limit(limit)
    return [_run(row) for row in connection.execute(query)]


def children(connection: Connection, run_id: str, limit: int = 1000) -> list[RunRow]:
    """The runs that this run started, the first one first."""
    query = select(runs_table).where(runs_table.c.parent_id == run_id)
    query = query.order_by(runs_table.c.created_at, runs_table.c.id).limit(limit)
    return [_run(row) for row in connection.execute(query)]


def outbox_run(connection: Connection, run_id: str) -> OutboxRow | None:
    """The run with this id, if it is in the outbox: it waits there, or was sent and has not ended."""
    row = connection.execute(select(outbox).where(outbox.c.id == run_id)).first()
    return OutboxRow(**row._mapping) if row else None


def outbox_due(connection: Connection, after: timedelta, limit: int = 100) -> list[OutboxRow]:
    """Runs that have waited in the outbox for longer than `after` and whose next try is due, oldest first."""
    now = clock.now()
    query = (
        select(outbox)
        .where(outbox.c.sent_at.is_(None), outbox.c.created_at <= now - after)
        .where(or_(outbox.c.retry_at.is_(None), outbox.c.retry_at <= now))
        .order_by(outbox.c.created_at, outbox.c.id)
        .limit(limit)
    )
    return [OutboxRow(**row._mapping) for row in connection.execute(query)]


def outbox_length(connection: Connection) -> int:
    """How many runs wait in the outbox to be sent."""
    return connection.scalar(select(func.count()).where(outbox.c.sent_at.is_(None))) or 0


def stats(connection: Connection, since: datetime | None = None) -> dict[State, int]:
    """How many runs are in each state, of those created since then; states without any are 0."""
    query = select(runs_table.c.state, func.count()).group_by(runs_table.c.state)
    if since is not None:
        query = query.where(runs_table.c.created_at >= since)
    found = {State(state): count for state, count in connection.execute(query)}
    return {state: found.get(state, 0) for state in State}


def counters(connection: Connection) -> Counters:
    """The totals, for Prometheus: monotone, exact, not touched by retention."""
    totals = {
        (task, state): count
        for task, state, count in connection.execute(
            select(counters_table.c.task, counters_table.c.state, counters_table.c["count"])
        )
    }
    by_task: defaultdict[str, dict[float, tuple[int, float]]] = defaultdict(dict)
    for row in connection.execute(select(durations_table)).mappings():
        by_task[row["task"]][row["le"]] = row["count"], row["sum"]
    return Counters(totals, tuple(_histogram(task, rows) for task, rows in sorted(by_task.items())))


def dead_letters(connection: Connection, limit: int = 100, *, replayed: bool = True) -> list[DeadLetterRow]:
    """Dead letters, the newest first; with `replayed=False` only those that were not sent again."""
    query = _newest(dead_letters_table, limit)
    if not replayed:
        query = query.where(dead_letters_table.c.replayed_at.is_(None))
    return [DeadLetterRow(**row._mapping) for row in connection.execute(query)]


def dead_letter(connection: Connection, entry_id: str) -> DeadLetterRow | None:
    """The dead letter with this id."""
    row = connection.execute(select(dead_letters_table).where(dead_letters_table.c.id == entry_id)).first()
    return DeadLetterRow(**row._mapping) if row else None


def audit(connection: Connection, limit: int = 100, *, target: str | None = None) -> list[AuditRow]:
    """The audit trail, the newest first; all of it or that of one target."""
    query = _newest(audit_table, limit)
    if target is not None:
        query = query.where(audit_table.c.target == target)
    return [AuditRow(**row._mapping) for row in connection.execute(query)]


def _newest(table: Table, limit: int) -> Select[Any]:
    return select(table).order_by(table.c.at.desc(), table.c.id.desc()).limit(limit)


def _filtered(query: Select[Any], filters: RunFilter) -> Select[Any]:
    columns = runs_table.c
    for name in ("task", "queue", "owner", "worker", "parent_id", "root_id"):
        value = getattr(filters, name)
        if value is not None:
            query = query.where(columns[name] == value)
    if filters.states:
        query = query.where(columns.state.in_([state.value for state in filters.states]))
    if filters.since is not None:
        query = query.where(columns.created_at >= filters.since)
    if filters.until is not None:
        query = query.where(columns.created_at < filters.until)
    if filters.ids_like:
        text = filters.ids_like
        query = query.where(
            or_(columns.id.startswith(text, autoescape=True), columns.task.startswith(text, autoescape=True))
        )
    return query


def _run(row: Row[Any]) -> RunRow:
    values = dict(row._mapping)
    return RunRow(**{**values, "state": State(values["state"])})


def _histogram(task: str, rows: dict[float, tuple[int, float]]) -> Histogram:
    buckets, total = [], 0
    for le in sorted({*BUCKETS, *rows}):
        total += rows.get(le, (0, 0.0))[0]
        buckets.append((le, total))
    return Histogram(task, tuple(buckets), total, sum(seconds for _, seconds in rows.values()))
