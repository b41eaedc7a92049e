"""Dead letters that match, found, counted, marked and deleted a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_, update

from errands.core import clock
from errands.store.rows import DeadLetterRow
from errands.store.tables import dead_letters

_c = dead_letters.c


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which dead letters; None means any.

    Args:
        task, queue: by name.
        reason: a text that the reason holds; upper and lower case are the same.
        since, until: bounds of when they came.
        replayed: those that were sent again already (True), or that were not (False).
    """

    task: str | None = None
    queue: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    replayed: bool | None = None


def page(
    connection: Connection, match: LetterFilter, *, after: str | None = None, limit: int = 100
) -> list[DeadLetterRow]:
    """The next letters, the oldest first.

    Args:
        after: go on after the letter whose `cursor` this is.

    Raises:
        ValueError: `after` is no cursor.
    """
    query = select(dead_letters).where(*_conditions(match))
    if after is not None:
        at, _, letter_id = after.partition("~")
        query = query.where(tuple_(_c.at, _c.id) > (datetime.fromisoformat(at), letter_id))
    query = query.order_by(_c.at, _c.id).limit(limit)
    return [DeadLetterRow(**row._mapping) for row in connection.execute(query)]


def newest(connection: Connection, match: LetterFilter, limit: int) -> list[DeadLetterRow]:
    """The newest that match, the newest first."""
    query = select(dead_letters).where(*_conditions(match)).order_by(_c.at.desc(), _c.id.desc()).limit(limit)
    return [DeadLetterRow(**row._mapping) for row in connection.execute(query)]


def cursor(letter: DeadLetterRow) -> str:
    """Where `page` goes on after this letter."""
    return f"{letter.at.isoformat()}~{letter.id}"


def count(connection: Connection, match: LetterFilter) -> int:
    """How many match."""
    return connection.scalar(select(func.count()).select_from(dead_letters).where(*_conditions(match))) or 0


def remove(connection: Connection, ids: Sequence[str]) -> int:
    """Delete letters. Returns how many there were."""
    return connection.execute(delete(dead_letters).where(_c.id.in_(ids))).rowcount


def mark_run_replayed(connection: Connection, run_id: str) -> None:
    """Note that the run of these letters was sent again."""
    connection.execute(
        update(dead_letters)
        .where(_c.run_id == run_id, _c.replayed_at.is_(None))
        .values(replayed_at=clock.now())
    )


def _conditions(match: LetterFilter) -> list[ColumnElement[Any]]:
    found: list[ColumnElement[Any]] = []
    if match.task is not None:
        found.append(_c.task == match.task)
    if match.queue is not None:
        found.append(_c.queue == match.queue)
    if match.reason is not None:
        found.append(func.lower(_c.reason).contains(match.reason.lower(), autoescape=True))
    if match.since is not None:
        found.append(_c.at >= match.since)
    if match.until is not None:
        found.append(_c.at < match.until)
    if match.replayed is not None:
        found.append(_c.replayed_at.is_not(None) if match.replayed else _c.replayed_at.is_(None))
    return found
