"""The durable stream of what happened to runs: read by the recorder, followed by live screens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from msgspec.structs import replace
from redis.exceptions import ResponseError

from errands.broker.client import AsyncClient, Client
from errands.core.events import Event

START = "0-0"
_BEHIND = files("errands.broker").joinpath("lua/behind.lua").read_text()

Entry = tuple[str, Event | None, bytes]
RawEntry = tuple[str, bytes, int | None]


@dataclass(frozen=True, slots=True)
class Extent:
    """What a stream holds, and what it ever held.

    Args:
        length: entries in it.
        first_id: of the oldest entry in it; `START` when it is empty.
        last_id: of the newest that was ever written.
        added: entries ever written; None where the server does not count them (Redis before 7).
    """

    length: int = 0
    first_id: str = START
    last_id: str = START
    added: int | None = 0


class EventStream:
    """Reads the stream that `LiveRuns.record` writes.

    Args:
        client: a client whose socket time-out is longer than any `block_ms` asked for.
        key: the stream's name (`Keys.events`).
    """

    def __init__(self, client: Client, key: str) -> None:
        self._client: Any = client
        self._key = key

    def read(self, after: str = START, count: int = 1000, block_ms: int | None = None) -> list[Entry]:
        """Entries after the one with id `after`, oldest first.

        Args:
            after: an entry's id; `START` for all.
            count: the most entries to return.
            block_ms: milliseconds to wait for the first one; None does not wait.

        Returns:
            (entry id, event, raw bytes) each; the event is None where the bytes are no event.
        """
        reply = self._client.execute_command(*_xread(self._key, after, count, block_ms))
        return [_entry(entry_id, fields) for entry_id, fields in _entries(reply)]

    def read_raw(self, after: str = START, count: int = 1000) -> list[RawEntry]:
        """Entries after the one with id `after`, oldest first, undecoded and without waiting.

        Returns:
            (entry id, raw bytes, number of the run's attempt at that time) each.
        """
        reply = self._client.execute_command(*_xread(self._key, after, count, None))
        return [_raw(entry_id, fields) for entry_id, fields in _entries(reply)]

    def wait(self, after: str, block_ms: int) -> bool:
        """Wait up to `block_ms` milliseconds for an entry after `after`. Returns whether there is one."""
        return bool(_entries(self._client.execute_command(*_xread(self._key, after, 1, block_ms))))

    def trim(self, before_id: str, keep_seconds: float = 600.0) -> int:
        """Drop entries that are older than `before_id` and than `keep_seconds` by the server's clock.

        A while is kept so that a screen which lost its connection can go on where it was.
        Returns how many were dropped.
        """
        seconds, micros = self._client.time()
        horizon = int(seconds * 1000 + micros / 1000 - keep_seconds * 1000)
        oldest = min((horizon, 0), _parts(before_id))
        return int(self._client.xtrim(self._key, minid=f"{oldest[0]}-{oldest[1]}", approximate=True))

    def age(self, entry_id: str) -> float:
        """Seconds since the entry with this id was written, by the server's clock."""
        seconds, micros = self._client.time()
        age: float = seconds + micros / 1e6 - _parts(entry_id)[0] / 1000
        return max(0.0, age)

    def last_id(self) -> str:
        """The id of the newest entry that was ever written; `START` for an empty stream."""
        rows: Any = self._client.xrevrange(self._key, count=1)
        return rows[0][0].decode() if rows else START

    def length(self) -> int:
        """How many entries the stream holds."""
        return int(self._client.xlen(self._key))

    def extent(self) -> Extent:
        """What the stream holds and ever held. One round trip."""
        try:
            info = self._client.xinfo_stream(self._key)
        except ResponseError as exc:
            if "no such key" in str(exc):
                return Extent()
            raise
        first = info["first-entry"]
        return Extent(
            length=int(info["length"]),
            first_id=_text(first[0]) if first else START,
            last_id=_text(info["last-generated-id"]),
            added=info.get("entries-added"),
        )

    def behind(self, position: str, entries: int | None = None, most: int = 10_000) -> tuple[int, float]:
        """How far a reader is behind: in entries, and in seconds since the first of them was written, by the
        server's clock.

        Args:
            position: id of the last entry it has read.
            entries: how many were ever written up to that one, as `Extent.added` counts. Where this or the
                server's count is not known, entries are counted one by one.
            most: the most entries to count one by one.
        """
        count, first, now = self._client.eval(
            _BEHIND, 1, self._key, position, -1 if entries is None else entries, most
        )
        return int(count), max(0.0, (int(now) - _parts(first.decode())[0]) / 1000) if count else 0.0


async def follow(
    client: AsyncClient, key: str, after: str = "$", block_ms: int = 15_000
) -> AsyncIterator[Entry | None]:
    """Entries as they are written, without end; None each time that `block_ms` pass with nothing new."""
    if after == "$":
        rows: Any = await client.xrevrange(key, count=1)
        after = rows[0][0].decode() if rows else START
    untyped: Any = client
    while True:
        reply = await untyped.execute_command(*_xread(key, after, 500, block_ms))
        entries = _entries(reply)
        if not entries:
            yield None
        for entry_id, fields in entries:
            entry = _entry(entry_id, fields)
            after = entry[0]
            yield entry


def _xread(key: str, after: str, count: int, block_ms: int | None) -> list[Any]:
    block = [] if block_ms is None else ["BLOCK", block_ms]
    # Named in bytes, the command's reply comes as the server wrote it: redis-py makes no dictionaries of it.
    return [b"XREAD", "COUNT", count, *block, "STREAMS", key, after]


def _entries(reply: Any) -> list[tuple[bytes, Any]]:
    """RESP2 answers a list of pairs, RESP3 a map; both mean the same."""
    if not reply:
        return []
    streams = reply.values() if isinstance(reply, dict) else (rows for _, rows in reply)
    return [(row[0], row[1]) for rows in streams for row in _rows(rows)]


def _rows(rows: Any) -> Any:
    # redis-py wraps a RESP3 stream's rows in one more list.
    if rows and isinstance(rows[0], list) and rows[0] and isinstance(rows[0][0], list | tuple):
        return rows[0]
    return rows


def _entry(entry_id: bytes, fields: Any) -> Entry:
    values = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    raw: bytes = values.get(b"e", b"")
    try:
        event: Event | None = Event.from_json(raw)
    except ValueError:
        event = None
    else:
        if event is not None and event.attempt is None and b"n" in values:
            event = replace(event, attempt=int(values[b"n"]))
    return entry_id.decode(), event, raw


def _raw(entry_id: bytes, fields: Any) -> RawEntry:
    if len(fields) == 4 and fields[0] == b"e" and fields[2] == b"n":  # as the script writes them
        return entry_id.decode(), fields[1], int(fields[3])
    values = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
    attempt = values.get(b"n")
    return entry_id.decode(), values.get(b"e", b""), None if attempt is None else int(attempt)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _parts(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
