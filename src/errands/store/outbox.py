"""Runs that wait for their transaction: written with the application's own rows, sent after the commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import delete, event, select
from sqlalchemy.orm import Session, registry
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from errands.core import clock
from errands.store import tables
from errands.store.engine import Database

_KEY = "errands_outbox"

Publish = Callable[[Sequence[str]], None]


class OutboxEntry:
    """A row of the outbox, as an object that a session can hold until it flushes."""

    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


registry(metadata=tables.metadata).map_imperatively(OutboxEntry, tables.outbox)


def add(
    session: Any, publish: Publish, *, run_id: str, task: str, args: list[Any], kwargs: dict[str, Any],
    options: dict[str, Any], owner: str | None,
) -> None:  # fmt: skip
    """Let `session` write the run with its transaction, and call `publish` with its id after the commit.

    Args:
        session: a `Session` or an `AsyncSession`.
    """
    synchronous: Session = getattr(session, "sync_session", session)
    synchronous.add(
        OutboxEntry(
            id=run_id,
            task=task,
            args=args,
            kwargs=kwargs,
            options=options,
            owner=owner,
            created_at=clock.now(),
            tries=0,
        )
    )
    waiting = synchronous.info.get(_KEY)
    if waiting is None:
        synchronous.info[_KEY] = waiting = []
        event.listen(synchronous, "before_flush", _insert)
        event.listen(synchronous, "after_commit", lambda sent: _after_commit(sent, publish))
    waiting.append(run_id)


def rows(database: Database, run_ids: Sequence[str]) -> list[Any]:
    """The outbox rows of `run_ids` that were committed, oldest first."""
    query = select(tables.outbox).where(tables.outbox.c.id.in_(run_ids)).order_by(tables.outbox.c.created_at)
    with database.reading() as connection:
        return list(connection.execute(query).all())


def remove(database: Database, run_ids: Sequence[str]) -> None:
    """Take rows that were sent out of the outbox."""
    with database.engine.begin() as connection:
        connection.execute(delete(tables.outbox).where(tables.outbox.c.id.in_(run_ids)))


def _insert(session: Session, _context: Any, _instances: Any) -> None:
    """Insert new entries ourselves: an id that is in the outbox already is the same run, and no error."""
    entries = [item for item in session.new if isinstance(item, OutboxEntry)]
    if not entries:
        return
    names = tables.outbox.c.keys()
    values = [{name: getattr(entry, name) for name in names if hasattr(entry, name)} for entry in entries]
    for entry in entries:
        session.expunge(entry)
    # The engine has imported its own of the two; the other one weighs two megabytes.
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    session.execute(insert(tables.outbox).values(values).on_conflict_do_nothing())


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
