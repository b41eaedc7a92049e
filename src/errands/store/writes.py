"""Everything that is written to Errands' tables. Each function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from errands.core import clock
from errands.core.errors import ErrandsError
from errands.core.states import FINAL
from errands.store import durable, tables
from errands.store.bulk import Loaded
from errands.store.effects import save_checkpoints
from errands.store.fold import DEAD_LETTER, UNKNOWN_TASK, Fold
from errands.store.ledger_event import LedgerEvent
from errands.store.tables import counters, dead_letters, durations, outbox, position

START = "0-0"
_ENDED = frozenset(state.value for state in FINAL)


_POSITION = ("entry_id", "doubtful_until", "entries", "missing", "missing_at")
_MOVE = update(position).where(
    position.c.stream == bindparam("b_stream"),
    position.c.entry_id == bindparam("b_entry_id"),
    position.c.doubtful_until == bindparam("b_doubtful"),
)


class Fenced(ErrandsError):
    """Another recorder has moved on in this stream; what was read is its business now."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream was read.

    Args:
        entry_id: the last entry that was read.
        doubtful_until: entries up to this one may have been read before.
        entries: how many were ever written to the stream up to `entry_id`; None where nobody knows.
        missing: how many the stream had dropped before they could be read.
        missing_at: when that was last noticed.
    """

    entry_id: str = START
    doubtful_until: str = START
    entries: int | None = None
    missing: int = 0
    missing_at: datetime | None = None


def entry_order(entry_id: str) -> tuple[int, int]:
    """What to compare two stream entries' ids by."""
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)


def read_position(connection: Connection, stream: str) -> Position:
    """How far `stream` was read; its start where it never was."""
    query = select(*(position.c[name] for name in _POSITION)).where(position.c.stream == stream)
    row = connection.execute(query).first()
    return Position(*row) if row else Position()


def save_position(connection: Connection, stream: str, expected: Position, new: Position) -> None:
    """Move on from `expected` to `new`. Call it first in the transaction: it is also the lock that keeps two
    recorders from writing the same rows.

    Raises:
        Fenced: the position is not `expected` any more.
    """
    values = asdict(new)
    moved = connection.execute(
        _MOVE.values(values),
        {"b_stream": stream, "b_entry_id": expected.entry_id, "b_doubtful": expected.doubtful_until},
    )
    if moved.rowcount == 1:
        return
    if (expected.entry_id, expected.doubtful_until) == (START, START):
        first = _insert(connection, position).values(stream=stream, **values).on_conflict_do_nothing()
        if connection.execute(first.returning(position.c.stream)).first() is not None:
            return
    raise Fenced(
        f"the ledger's position in {stream!r} is not {expected.entry_id} any more: another beat moved it"
    )


def apply_events(
    connection: Connection, entries: Sequence[tuple[str, LedgerEvent]], *, doubtful_until: str = START
) -> None:
    """Add events to the ledger, in the order given.

    Args:
        connection: in a transaction that also saves the position.
        entries: (id in the stream, event) pairs.
        doubtful_until: entries up to this id may have been applied before; then they change and count
            nothing.
    """
    loaded = Loaded(connection, list({event.run_id for _, event in entries}))
    fold = Fold(loaded.runs, loaded.attempts, loaded.dialect.moment)
    if doubtful_until == START:
        for entry_id, event in entries:
            fold.add(entry_id, event)
    else:
        doubtful = entry_order(doubtful_until)
        for entry_id, event in entries:
            fold.add(entry_id, event, doubtful=entry_order(entry_id) <= doubtful)
    loaded.save()
    if fold.checkpoints:
        save_checkpoints(connection, fold.checkpoints)
    durable.forget_ended(connection, [run.id for run in loaded.runs.values() if run.state in _ENDED])
    for letter in _add_dead_letters(connection, list(fold.dead_letters.values())):
        _count(fold.counts, letter["task"] or UNKNOWN_TASK)
    _add_up(connection, fold.counts, fold.buckets)


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
    }
    if _add_dead_letters(connection, [letter]):
        _add_up(connection, {(UNKNOWN_TASK, DEAD_LETTER): 1}, {})


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


def _count(counts: dict[tuple[str, str], int], task: str) -> None:
    counts[task, DEAD_LETTER] = counts.get((task, DEAD_LETTER), 0) + 1


def _add_up(
    connection: Connection,
    counts: Mapping[tuple[str, str], int],
    buckets: Mapping[tuple[str, float], tuple[int, float]],
) -> None:
    if counts:
        statement = _insert(connection, counters)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["task", "state"],
                set_={"count": counters.c.count + statement.excluded["count"]},
            ),
            [{"task": t, "state": s, "count": n} for (t, s), n in sorted(counts.items())],
        )
    if buckets:
        statement = _insert(connection, durations)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["task", "le"],
                set_={
                    "count": durations.c.count + statement.excluded["count"],
                    "sum": durations.c.sum + statement.excluded["sum"],
                },
            ),
            [{"task": t, "le": le, "count": n, "sum": s} for (t, le), (n, s) in sorted(buckets.items())],
        )


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
