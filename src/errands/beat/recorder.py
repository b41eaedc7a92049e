"""Moves what happened to runs from the event stream into the ledger: in bulk, each entry exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, StatementError

from errands.core.events import Event
from errands.store import writes
from errands.store.engine import Database
from errands.store.writes import Fenced, Position, entry_order

_log = structlog.get_logger(__name__)

_TRIM_SECONDS = 30.0
# What an event that cannot be written raises, in Python or in a driver.
_UNWRITABLE = (StatementError, ValueError, TypeError, AttributeError, KeyError, OverflowError)

Entry = tuple[str, Event | None, bytes]


class Stream(Protocol):
    """What the recorder needs of `errands.broker.events.EventStream`."""

    def read(self, after: str, count: int, block_ms: int | None) -> list[Entry]: ...

    def trim(self, before_id: str, keep_seconds: float) -> int: ...

    def last_id(self) -> str: ...


class Recorder:
    """Reads after the position kept in SQL, and writes the rows and the new position in one transaction.

    Killed at any moment, it goes on where the last commit was. Two at once do not disturb each other: the
    one that commits first moves the position, the other one is fenced.

    Args:
        stream: the event stream.
        database: where the ledger is.
        name: the stream's name in the table of positions.
        batch: the most entries in one transaction; by default 500 on SQLite, where all other writers wait for
            its end, and 2000 on PostgreSQL, where they don't.
        block_ms: milliseconds that `step` waits for the first entry; None does not wait.
        keep_seconds: how long entries stay in the stream after they were recorded, for live screens.
        monotonic: seconds that only grow; a test passes its own.
    """

    def __init__(
        self,
        stream: Stream,
        database: Database,
        *,
        name: str = "events",
        batch: int | None = None,
        block_ms: int | None = None,
        keep_seconds: float = 600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._database = database
        self._name = name
        self._batch = batch or (500 if database.dialect == "sqlite" else 2000)
        self._block_ms = block_ms
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._position: Position | None = None
        self._trimmed = float("-inf")

    def step(self) -> int:
        """Move one batch. Returns how many entries it had; 0 when there was nothing, or another was first.

        Raises:
            redis.RedisError, sqlalchemy.exc.OperationalError: a server is away; nothing was moved.
        """
        if self._position is None:
            with self._database.reading() as connection:
                self._position = writes.read_position(connection, self._name)
        try:
            entries = self._stream.read(self._position.entry_id, self._batch, self._block_ms)
            if not entries:
                self._look_for_loss(self._position)
                return 0
            self._record(entries)
        except Fenced as fenced:
            _log.info("another beat records; going on behind it", reason=str(fenced))
            self._position = None
            return 0
        if self._monotonic() - self._trimmed >= _TRIM_SECONDS:
            self._trimmed = self._monotonic()
            self._stream.trim(self._position.entry_id, self._keep_seconds)
        return len(entries)

    def _record(self, entries: Sequence[Entry]) -> None:
        try:
            self._write(entries)
        except _UNWRITABLE as exc:
            if _server_is_away(exc):
                raise
            if len(entries) > 1:
                middle = len(entries) // 2
                self._record(entries[:middle])
                self._record(entries[middle:])
            else:
                self._bury(entries[0], exc)

    def _write(self, entries: Sequence[Entry]) -> None:
        expected, new = self._moved(entries[-1][0])
        events = [(entry_id, event) for entry_id, event, _ in entries if event is not None]
        undecodable = [(entry_id, raw) for entry_id, event, raw in entries if event is None]
        with self._database.writing() as connection:
            writes.save_position(connection, self._name, expected, new)
            writes.apply_events(connection, events, doubtful_until=expected.doubtful_until)
            for entry_id, raw in undecodable:
                writes.add_dead_letter(
                    connection, entry_id, raw, "an entry of the event stream that is no event"
                )
        self._position = new
        if undecodable:
            _log.error(
                "entries of the event stream are no events; kept as dead letters", count=len(undecodable)
            )

    def _bury(self, entry: Entry, reason: Exception) -> None:
        entry_id, _, raw = entry
        expected, new = self._moved(entry_id)
        with self._database.writing() as connection:
            writes.save_position(connection, self._name, expected, new)
            writes.add_dead_letter(
                connection, entry_id, raw, f"the ledger cannot take this event: {reason}"[:2000]
            )
        self._position = new
        _log.error(
            "an event cannot be recorded; kept as a dead letter", entry_id=entry_id, reason=str(reason)
        )

    def _moved(self, entry_id: str) -> tuple[Position, Position]:
        expected = self._position or Position()
        return expected, Position(entry_id, expected.doubtful_until)

    def _look_for_loss(self, position: Position) -> None:
        """A stream that ends before our position lost entries that we have: the server came back without its
        data, or without the last of it. All that is there now is read; what we had before changes nothing."""
        last = self._stream.last_id()
        if entry_order(last) >= entry_order(position.entry_id):
            return
        doubtful = max(position.entry_id, position.doubtful_until, key=entry_order)
        restarted = Position(doubtful_until=doubtful)
        with self._database.writing() as connection:
            writes.save_position(connection, self._name, position, restarted)
        self._position = restarted
        _log.warning(
            "the event stream ends before what the ledger has: Valkey lost data; reading all that is there",
            stream_ends_at=last,
            ledger_was_at=position.entry_id,
        )


def _server_is_away(exc: Exception) -> bool:
    """Whether the error tells of the database and not of the event."""
    return isinstance(exc, DBAPIError) and (
        isinstance(exc, OperationalError | InterfaceError) or exc.connection_invalidated
    )
