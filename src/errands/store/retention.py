"""Delete what is old, a chunk a transaction, so that nobody waits long for the database."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, Table, delete, select

from errands.core import clock
from errands.core.states import FINAL
from errands.store.tables import attempts, audit, checkpoints, dead_letters, effects, runs


def prune_runs(connection: Connection, older_than: timedelta, *, limit: int = 1000) -> int:
    """Delete up to `limit` ended runs, with their attempts, that ended longer than `older_than` ago.
    Returns how many; the caller goes on, a transaction a chunk, until there are none."""
    ended = runs.c.state.in_([state.value for state in FINAL])
    old = ended & (runs.c.finished_at < clock.now() - older_than)
    ids = list(connection.scalars(select(runs.c.id).where(old).limit(limit)))
    if ids:
        for table in (attempts, checkpoints, effects):
            connection.execute(delete(table).where(table.c.run_id.in_(ids)))
        connection.execute(delete(runs).where(runs.c.id.in_(ids)))
    return len(ids)


def prune_dead_letters(connection: Connection, older_than: timedelta, *, limit: int = 1000) -> int:
    """Delete up to `limit` dead letters older than `older_than`. Returns how many."""
    return _prune(connection, dead_letters, older_than, limit)


def prune_audit(connection: Connection, older_than: timedelta, *, limit: int = 1000) -> int:
    """Delete up to `limit` audit rows older than `older_than`. Returns how many."""
    return _prune(connection, audit, older_than, limit)


def _prune(connection: Connection, table: Table, older_than: timedelta, limit: int) -> int:
    old = select(table.c.id).where(table.c.at < clock.now() - older_than).limit(limit)
    return connection.execute(delete(table).where(table.c.id.in_(old.scalar_subquery()))).rowcount
