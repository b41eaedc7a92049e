"""Everything that is written to Errands' tables. Each function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Connection, Select, Table, Text, any_, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite

from errands.core import clock
from errands.core.errors import ErrandsError
from errands.core.events import Event
from errands.store import bulk, tables
from errands.store.fold import DEAD_LETTER, UNKNOWN_TASK, Fold
from errands.store.row import Row
from errands.store.tables import attempts, counters, dead_letters, durations, outbox, position, runs

START = "0-0"
_HEAVY = {"args", "kwargs", "message", "result", "error_type", "error_message", "error_traceback", "progress"}
_RUN_LIGHT = [column for column in runs.c if column.name not in _HEAVY]
_HAS_MESSAGE = runs.c.message.is_not(None).label("message")
_ATTEMPT_LIGHT = [
    attempts.c.run_id,
    attempts.c.number,
    attempts.c.started_at,
    attempts.c.outcome,
    attempts.c.worker,
]


class Fenced(ErrandsError):
    """Another recorder has moved on in this stream; what was read is its business now."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream was read. Entries up to `doubtful_until` may have been read before."""

    entry_id: str = START
    doubtful_until: str = START


def entry_order(entry_id: str) -> tuple[int, int]:
    """What to compare two stream entries' ids by."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def read_position(connection: Connection, stream: str) -> Position:
    """How far `stream` was read; its start where it never was."""
    query = select(position.c.entry_id, position.c.doubtful_until).where(position.c.stream == stream)
    row = connection.execute(query).first()
    return Position(*row) if row else Position()


def save_position(connection: Connection, stream: str, expected: Position, new: Position) -> None:
    """Move on from `expected` to `new`. Call it first in the transaction: it is also the lock that keeps two
    recorders from writing the same rows.

    Raises:
        Fenced: the position is not `expected` any more.
    """
    values = {"entry_id": new.entry_id, "doubtful_until": new.doubtful_until}
    moved = connection.execute(
        update(position)
        .where(
            position.c.stream == stream,
            position.c.entry_id == expected.entry_id,
            position.c.doubtful_until == expected.doubtful_until,
        )
        .values(values)
    )
    if moved.rowcount == 1:
        return
    if expected == Position():
        first = _insert(connection, position).values(stream=stream, **values).on_conflict_do_nothing()
        if connection.execute(first.returning(position.c.stream)).first() is not None:
            return
    raise Fenced(
        f"the ledger's position in {stream!r} is not {expected.entry_id} any more: another beat moved it"
    )


def apply_events(
    connection: Connection, entries: Sequence[tuple[str, Event]], *, doubtful_until: str = START
) -> None:
    """Add events to the ledger, in the order given.

    Args:
        connection: in a transaction that also saves the position.
        entries: (id in the stream, event) pairs.
        doubtful_until: entries up to this id may have been applied before; then they change and count
            nothing.

    Raises:
        ValueError: one of the events cannot have happened like that.
    """
    ids = list({event.run_id for _, event in entries})
    known_runs, known_attempts = _load(connection, ids)
    fold = Fold(known_runs, known_attempts)
    doubtful = entry_order(doubtful_until)
    for entry_id, event in entries:
        fold.add(entry_id, event, doubtful=entry_order(entry_id) <= doubtful)
    bulk.write(connection, runs, fold.runs.values())
    bulk.write(connection, attempts, fold.attempts.values())
    for letter in _add_dead_letters(connection, list(fold.dead_letters.values())):
        fold.counts[letter["task"] or UNKNOWN_TASK, DEAD_LETTER] += 1
    _add_up(connection, fold)


def add_dead_letter(connection: Connection, entry_id: str, raw: bytes, reason: str) -> None:
    """Keep an entry of the stream that cannot be applied, with the reason."""
    letter = {
        "id": entry_id,
        "run_id": None,
        "task": None,
        "queue": None,
        "reason": reason,
        "message": {"raw": raw.decode("utf-8", "backslashreplace")},
        "at": clock.now(),
        "replayed_at": None,
    }
    if _add_dead_letters(connection, [letter]):
        fold = Fold({}, {})
        fold.counts[UNKNOWN_TASK, DEAD_LETTER] += 1
        _add_up(connection, fold)


def outbox_failed(connection: Connection, run_id: str, error: str, retry_at: datetime) -> None:
    """Note that publishing a run failed, and when to try again."""
    connection.execute(
        update(outbox)
        .where(outbox.c.id == run_id)
        .values(tries=outbox.c.tries + 1, last_error=error[:2000], retry_at=retry_at)
    )


def mark_replayed(connection: Connection, entry_id: str) -> bool:
    """Note that a dead letter was sent again. False where it was already, or there is none."""
    done = connection.execute(
        update(dead_letters)
        .where(dead_letters.c.id == entry_id, dead_letters.c.replayed_at.is_(None))
        .values(replayed_at=clock.now())
    )
    return done.rowcount == 1


def add_audit(
    connection: Connection,
    *,
    audit_id: str,
    actor: str,
    action: str,
    target: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add to the audit trail. Rows are never changed, and leave it by retention only."""
    connection.execute(
        tables.audit.insert().values(
            id=audit_id,
            at=clock.now(),
            actor=actor,
            action=action,
            target=target,
            reason=reason,
            details=None if details is None else dict(details),
        )
    )


def _load(connection: Connection, ids: list[str]) -> tuple[dict[str, Row], dict[tuple[str, int], Row]]:
    found_runs: dict[str, Row] = {}
    found_attempts: dict[tuple[str, int], Row] = {}

    def rows(query: Select[Any]) -> Iterable[Row]:
        return (Row(dict(row), new=False) for row in connection.execute(query).mappings())

    for start in range(0, len(ids), 2000):
        some = ids[start : start + 2000]
        query = select(*_RUN_LIGHT, _HAS_MESSAGE).where(_among(connection, runs.c.id, some))
        found_runs |= {row.values["id"]: row for row in rows(query)}
        query = select(*_ATTEMPT_LIGHT).where(_among(connection, attempts.c.run_id, some))
        found_attempts |= {(row.values["run_id"], row.values["number"]): row for row in rows(query)}
    return found_runs, found_attempts


def _among(connection: Connection, column: ColumnElement[str], values: list[str]) -> ColumnElement[bool]:
    """`column IN values`; for PostgreSQL as one parameter, which spares it and the driver thousands."""
    if connection.dialect.name == "postgresql":
        return column == any_(literal(values, ARRAY(Text)))
    return column.in_(values)


def _add_dead_letters(connection: Connection, letters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `letters` that were not there yet."""
    if not letters:
        return []
    query = select(dead_letters.c.id).where(dead_letters.c.id.in_([letter["id"] for letter in letters]))
    there = set(connection.scalars(query))
    new = [letter for letter in letters if letter["id"] not in there]
    if new:
        connection.execute(dead_letters.insert(), new)
    return new


def _add_up(connection: Connection, fold: Fold) -> None:
    if fold.counts:
        statement = _insert(connection, counters)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["task", "state"],
                set_={"count": counters.c.count + statement.excluded["count"]},
            ),
            [{"task": t, "state": s, "count": n} for (t, s), n in sorted(fold.counts.items())],
        )
    if fold.buckets:
        statement = _insert(connection, durations)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["task", "le"],
                set_={
                    "count": durations.c.count + statement.excluded["count"],
                    "sum": durations.c.sum + statement.excluded["sum"],
                },
            ),
            [{"task": t, "le": le, "count": n, "sum": s} for (t, le), (n, s) in sorted(fold.buckets.items())],
        )


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
