"""Moves what happened to runs from the event stream into the ledger: in bulk, each entry exactly once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, StatementError

from errands.beat import loss
from errands.broker.events import Extent, RawEntry
from errands.core import clock
from errands.store import writes
from errands.store.bulk import batch_of
from errands.store.engine import Database
from errands.store.ledger_event import LedgerEvent
from errands.store.writes import Fenced, Position

_log = structlog.get_logger(__name__)

_TRIM_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_FIRST_BATCH = 250
_BATCH_BYTES = 8 * 1024 * 1024  # of events in one batch, about: each may carry a message and a result
# What an event that cannot be written raises, in Python or in a driver.
_UNWRITABLE = (StatementError, ValueError, TypeError, AttributeError, KeyError, OverflowError)


class Stream(Protocol):
    """What the recorder needs of `errands.broker.events.EventStream`."""

    def read_raw(self, after: str, count: int) -> list[RawEntry]: ...

    def wait(self, after: str, block_ms: int) -> bool: ...

    def trim(self, before_id: str, keep_seconds: float) -> int: ...

    def extent(self) -> Extent: ...

    def age(self, entry_id: str) -> float: ...


class Recorder:
    """Reads after the position kept in SQL, and writes the rows and the new position in one transaction.

    Killed at any moment, it goes on where the last commit was. Two at once do not disturb each other: the
    one that commits first moves the position, the other one is fenced.

    Args:
        stream: the event stream.
        database: where the ledger is.
        name: the stream's name in the table of positions.
        batch: the most entries in one transaction; by default 2000 on SQLite, where all other writers wait
            for its end, and 5000 on PostgreSQL, where they don't. It begins with fewer, and doubles while
            it is behind.
        block_ms: milliseconds that `step` waits for the first entry when there is none; None does not wait.
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
        self._most = batch or batch_of(database.dialect)
        self._count = min(self._most, _FIRST_BATCH)
        self._block_ms = block_ms
        self._keep_seconds = keep_seconds
        self._monotonic = monotonic
        self._position: Position | None = None
        self._trimmed = self._looked = float("-inf")
        self._full = False
        self._lag = 0.0

    @property
    def lag(self) -> float:
        """Seconds, by the server's clock, between the newest entry of the last batch and its end; 0 when the
        last step found nothing."""
        return self._lag

    @property
    def behind(self) -> bool:
        """Whether the last step found as much as it could take: there is more to come."""
        return self._full

    def step(self) -> int:
        """Move one batch. Returns how many entries it had; 0 when there was nothing, or another was first.

        Raises:
            redis.RedisError, sqlalchemy.exc.OperationalError: a server is away; nothing was moved.
        """
        self._full, self._lag = False, 0.0
        position = self._position
        if position is None:
            with self._database.reading() as connection:
                position = self._position = writes.read_position(connection, self._name)
            self._looked = float("-inf")
        try:
            if self._monotonic() - self._looked >= _LOOK_SECONDS:
                self._looked = self._monotonic()
                position = self._look_for_loss(position)
            entries = self._stream.read_raw(position.entry_id, self._count)
            if not entries:
                self._wait(position)
                return 0
            self._record(entries)
        except Fenced as fenced:
            _log.info("another beat records; going on behind it", reason=str(fenced))
            self._position = None
            return 0
        self._adapt(entries)
        self._lag = self._stream.age(entries[-1][0])
        if self._monotonic() - self._trimmed >= _TRIM_SECONDS:
            self._trimmed = self._monotonic()
            self._stream.trim(entries[-1][0], self._keep_seconds)
        return len(entries)

    def _adapt(self, entries: Sequence[RawEntry]) -> None:
        size = sum(len(raw) for _, raw, _ in entries)
        self._full = len(entries) >= self._count
        if size > _BATCH_BYTES:
            self._count = max(1, len(entries) // 2)
        elif self._full and size < _BATCH_BYTES // 4:
            self._count = min(self._most, self._count * 2)

    def _wait(self, position: Position) -> None:
        """Nothing is there: look whether that can be, and wait for more."""
        position = self._look_for_loss(position)
        if self._block_ms is not None:
            self._stream.wait(position.entry_id, self._block_ms)

    def _record(self, entries: Sequence[RawEntry]) -> None:
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

    def _write(self, entries: Sequence[RawEntry]) -> None:
        expected, new = self._moved(entries)
        events: list[tuple[str, LedgerEvent]] = []
        undecodable: list[tuple[str, bytes, str]] = []
        decode = LedgerEvent.from_json
        for entry_id, raw, attempt in entries:
            try:
                event = decode(raw)
            except ValueError as exc:
                undecodable.append((entry_id, raw, str(exc)))
            else:
                if event.attempt is None:
                    event.attempt = attempt
                events.append((entry_id, event))
        with self._database.writing() as connection:
            writes.save_position(connection, self._name, expected, new)
            writes.apply_events(connection, events, doubtful_until=expected.doubtful_until)
            for entry_id, raw, why in undecodable:
                reason = f"an entry of the event stream that is no event: {why}"
                writes.add_dead_letter(connection, entry_id, raw, reason[:2000])
        self._position = new
        if undecodable:
            _log.error(
                "entries of the event stream are no events; kept as dead letters", count=len(undecodable)
            )

    def _bury(self, entry: RawEntry, reason: Exception) -> None:
        entry_id, raw, _ = entry
        expected, new = self._moved([entry])
        with self._database.writing() as connection:
            writes.save_position(connection, self._name, expected, new)
            writes.add_dead_letter(
                connection, entry_id, raw, f"the ledger cannot take this event: {reason}"[:2000]
            )
        self._position = new
        _log.error(
            "an event cannot be recorded; kept as a dead letter", entry_id=entry_id, reason=str(reason)
        )

    def _moved(self, entries: Sequence[RawEntry]) -> tuple[Position, Position]:
        expected = self._position or Position()
        counted = None if expected.entries is None else expected.entries + len(entries)
        return expected, replace(expected, entry_id=entries[-1][0], entries=counted)

    def _look_for_loss(self, position: Position) -> Position:
        """Compare our position with what the stream says of itself. Returns the position to go on from."""
        extent = self._stream.extent()
        found = loss.compare(position, extent)
        new = found.position
        if not (found.dropped or found.restarted):
            self._position = new  # what it has learned is saved with the next batch
            return new
        if found.dropped:
            new = replace(new, missing=position.missing + found.count, missing_at=clock.now())
        with self._database.writing() as connection:
            writes.save_position(connection, self._name, position, new)
        self._position = new
        if found.dropped:
            _log.error(
                "the event stream dropped events before the ledger had them: the ledger is not complete; "
                "find out what kept the recorder, raise ERRANDS_EVENTS_MAX",
                missing=found.count if found.exact else f"at least {found.count}",
                ledger_was_at=position.entry_id,
                stream_begins_at=extent.first_id,
            )
        else:
            _log.warning(
                "the event stream ends before what the ledger has: Valkey lost data; "
                "reading all that is there",
                stream_ends_at=extent.last_id,
                ledger_was_at=position.entry_id,
            )
        return new


def _server_is_away(exc: Exception) -> bool:
    """Whether the error tells of the database and not of the event."""
    return isinstance(exc, DBAPIError) and (
        isinstance(exc, OperationalError | InterfaceError) or exc.connection_invalidated
    )
