"""The durable stream of what happened to runs: read by the recorder, followed by live screens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.resources import files
from typing import Any

from errands.broker.client import AsyncClient, Client
from errands.core.events import Event

START = "0-0"
_BEHIND = files("errands.broker").joinpath("lua/behind.lua").read_text()

Entry = tuple[str, Event | None, bytes]


class EventStream:
    """Reads the stream that `LiveRuns.record` writes.

    Args:
        client: a client whose socket time-out is longer than any `block_ms` asked for.
        key: the stream's name (`Keys.events`).
    """

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
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
        client: Any = self._client
        reply = client.execute_command(*_xread(self._key, after, count, block_ms))
        return [_entry(entry_id, fields) for entry_id, fields in _entries(reply)]

    def trim(self, before_id: str, keep_seconds: float = 600.0) -> int:
        """Drop entries that are older than `before_id` and than `keep_seconds` by the server's clock.

        A while is kept so that a screen which lost its connection can go on where it was.
        Returns how many were dropped.
        """
        seconds, micros = self._client.time()
        horizon = int(seconds * 1000 + micros / 1000 - keep_seconds * 1000)
        oldest = min((horizon, 0), _parts(before_id))
        return int(self._client.xtrim(self._key, minid=f"{oldest[0]}-{oldest[1]}", approximate=True))

    def last_id(self) -> str:
        """The id of the newest entry that was ever written; `START` for an empty stream."""
        rows: Any = self._client.xrevrange(self._key, count=1)
        return rows[0][0].decode() if rows else START

    def length(self) -> int:
        """How many entries the stream holds."""
        return int(self._client.xlen(self._key))

    def behind(self, position: str, most: int = 10_000) -> tuple[int, float]:
        """How far a reader at `position` is behind: entries (counted up to `most`), and seconds since the
        first of them was written, by the server's clock."""
        client: Any = self._client
        count, first, now = client.eval(_BEHIND, 1, self._key, position, most)
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
    return ["XREAD", "COUNT", count, *block, "STREAMS", key, after]


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


def _parts(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
