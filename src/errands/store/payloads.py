"""Arguments that were too large for a message: their table, by the run they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, exists, select
from sqlalchemy.orm import Session, registry

from errands.core import clock
from errands.store import tables
from errands.store.tables import dead_letters, outbox, payloads, runs


class Kept(NamedTuple):
    """A payload: its key, its run's id, and whether its content is in a store of the app's own."""

    key: str
    run_id: str
    elsewhere: bool


class PayloadEntry:
    """A row of the table, as an object that a session can hold until it flushes."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


registry(metadata=tables.metadata).map_imperatively(PayloadEntry, payloads)


def add(connection: Connection, **values: Any) -> None:
    """Write a payload: `key`, `run_id`, `task`, `bytes`, and `content`: None where the app's store has it."""
    connection.execute(payloads.insert().values(**values, created_at=clock.now()))


def add_with(session: Session, **values: Any) -> None:
    """Let `session` write a payload with its transaction."""
    session.add(PayloadEntry(**values, created_at=clock.now()))


def adopt(connection: Connection, run_id: str, by: str) -> None:
    """Let what was kept for a run belong to another one."""
    connection.execute(payloads.update().where(payloads.c.run_id == run_id).values(run_id=by))


def content(connection: Connection, key: str) -> tuple[bytes | None] | None:
    """What is kept under `key`, in a tuple of one; None where there is nothing (any more)."""
    row = connection.execute(select(payloads.c.content).where(payloads.c.key == key)).first()
    return None if row is None else (row.content,)


def without_run(connection: Connection, made_before: datetime, after: str, limit: int) -> list[Kept]:
    """Payloads whose run neither the ledger, the outbox nor a dead letter that was not replayed has; the next
    ones, by key, after the key `after`."""
    wanted = [
        exists().where(runs.c.id == payloads.c.run_id),
        exists().where(outbox.c.id == payloads.c.run_id),
        exists().where(dead_letters.c.run_id == payloads.c.run_id, dead_letters.c.replayed_at.is_(None)),
    ]
    query = (
        select(payloads.c.key, payloads.c.run_id, payloads.c.content.is_(None))
        .where(payloads.c.created_at < made_before, payloads.c.key > after, *(~one for one in wanted))
        .order_by(payloads.c.key)
        .limit(limit)
    )
    return [Kept(*row) for row in connection.execute(query)]


def remove(connection: Connection, keys: Sequence[str]) -> None:
    """Delete payloads."""
    connection.execute(delete(payloads).where(payloads.c.key.in_(keys)))
