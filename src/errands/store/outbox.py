"""Runs that wait for their transaction: written with the application's own rows, sent after the commit.

A row that was sent stays until the ledger knows that its run has ended: see `store/durable.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Text, cast, delete, event, select, update
from sqlalchemy.orm import Session, registry
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from errands.core import clock
from errands.store import tables
from errands.store.engine import Database
from errands.store.payloads import PayloadEntry
from errands.store.rows import OutboxRow

_KEY = "errands_outbox"
_FLUSHED = 1000  # rows that a session holds at most while it is given many

Publish = Callable[[Sequence[str]], None]


class OutboxEntry:
    """A row of the outbox, as an object that a session can hold until it flushes."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


registry(metadata=tables.metadata).map_imperatively(OutboxEntry, tables.outbox)


def add(
    session: Any, publish: Publish, *, run_id: str, task: str, args: list[Any], kwargs: dict[str, Any],
    options: dict[str, Any], owner: str | None, eta: datetime | None = None,
) -> None:  # fmt: skip
    """Let `session` write the run with its transaction, and call `publish` with its id after the commit.

    Args:
        session: a `Session` or an `AsyncSession`.
        eta: when the run is due, if not at once; the options name no other time.
    """
    synchronous = session_of(session)
    synchronous.add(
        OutboxEntry(
            id=run_id,
            task=task,
            args=args,
            kwargs=kwargs,
            options=options,
            owner=owner,
            created_at=clock.now(),
            eta=eta,
            tries=0,
        )
    )
    waiting = synchronous.info.get(_KEY)
    if waiting is None:
        synchronous.info[_KEY] = waiting = []
        event.listen(synchronous, "before_flush", _insert)
        event.listen(synchronous, "after_commit", lambda sent: _after_commit(sent, publish))
    waiting.append(run_id)


def session_of(session: Any) -> Session:
    """The session itself, or the one inside an `AsyncSession`."""
    synchronous: Session = getattr(session, "sync_session", session)
    return synchronous


def in_chunks(session: Any, added: Iterable[str]) -> Iterator[str]:
    """Pass on what `added` yields as it calls `add`, and let the session write the rows as they come.

    An `AsyncSession` can't write in a call that nobody awaits: it holds the rows until it flushes.
    """
    items = iter(added)
    while chunk := list(islice(items, _FLUSHED)):
        if session is session_of(session):
            session.flush()
        yield from chunk


def rows(database: Database, run_ids: Sequence[str]) -> list[OutboxRow]:
    """The outbox rows of `run_ids` that were committed and not sent, oldest first."""
    outbox = tables.outbox.c
    query = select(tables.outbox).where(outbox.id.in_(run_ids), outbox.sent_at.is_(None))
    with database.reading() as connection:
        found = connection.execute(query.order_by(outbox.created_at, outbox.id))
        return [OutboxRow(**row._mapping) for row in found]


def members_waiting(database: Database, batch_id: str, but: Collection[str]) -> bool:
    """Whether runs of a batch still wait to be sent, `but` for some."""
    outbox = tables.outbox.c
    of_batch = cast(outbox.options, Text).contains(f'"{batch_id}"', autoescape=True)
    query = select(outbox.id).where(outbox.sent_at.is_(None), outbox.id != batch_id, of_batch)
    with database.reading() as connection:
        return any(run_id not in but for run_id in connection.scalars(query))


def mark_sent(database: Database, run_ids: Sequence[str]) -> None:
    """Note that rows were sent. Those that somebody else works on are passed over: who does so knows."""
    outbox = tables.outbox.c
    free = select(outbox.id).where(outbox.id.in_(run_ids)).order_by(outbox.id)
    statement = update(tables.outbox).where(outbox.id.in_(free.with_for_update(skip_locked=True)))
    with database.writing() as connection:
        connection.execute(statement.values(sent_at=clock.now(), last_error=None, retry_at=None))


def remove(database: Database, run_ids: Sequence[str]) -> None:
    """Take rows out of the outbox: nobody sends them, or looks after their runs, any more."""
    with database.writing() as connection:
        connection.execute(delete(tables.outbox).where(tables.outbox.c.id.in_(run_ids)))


def _insert(session: Session, _context: Any, _instances: Any) -> None:
    """Insert new entries ourselves: an id that is in the outbox already is the same run, and no error."""
    for kind, table in ((PayloadEntry, tables.payloads), (OutboxEntry, tables.outbox)):
        entries = [item for item in session.new if isinstance(item, kind)]
        if not entries:
            continue
        names = table.c.keys()
        values = [{name: getattr(entry, name, None) for name in names} for entry in entries]
        for entry in entries:
            session.expunge(entry)
        # The engine has imported its own of the two; the other one weighs two megabytes.
        if session.get_bind().dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
        session.execute(insert(table).on_conflict_do_nothing(), values)


def _after_commit(session: Session, publish: Publish) -> None:
    if session.in_nested_transaction():  # a savepoint: the transaction itself is still open
        return
    waiting: list[str] = session.info.get(_KEY, [])
    # Rows of a savepoint that was rolled back are not in the table any more, and are not sent.
    run_ids, waiting[:] = list(waiting), []
    if run_ids:
        _off_the_loop(publish, run_ids)


def _off_the_loop(publish: Publish, run_ids: list[str]) -> None:
    """Publish in a thread when an event loop waits for this commit, so that the loop is not held up."""
    if in_greenlet():  # the session is an AsyncSession's
        await_only(asyncio.to_thread(publish, run_ids))
    else:
        publish(run_ids)
