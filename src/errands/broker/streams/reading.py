"""The commands by which a channel reads its queues, and what their replies say.

While there is something, one call of a script reads it, by level and up to the prefetch limit, and tells
acknowledgements on the way. When it found nothing, a blocking XREADGROUP waits for the next message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from errands.broker import leases
from errands.broker.keys import Keys
from errands.broker.streams import moment
from errands.broker.streams.holdings import grouped
from errands.broker.streams.layout import GROUP, streams_of, turn
from errands.broker.streams.scripts import READ

BLOCK_MS = 1000

# Stream and entries, as XREADGROUP gives them.
Streams = list[tuple[str, list[tuple[str, list[bytes]]]]]


class Reading:
    """How one channel reads. It remembers what it found last.

    Args:
        keys: names of keys.
        reader: name of the consumer.
    """

    def __init__(self, keys: Keys, reader: str) -> None:
        self._keys = keys
        self._reader = reader
        self._number = 0
        self._empty = False
        self._known = True  # that the server knows the script
        self._paused: frozenset[str] = frozenset()
        self._streams: dict[str, list[str]] = {}
        self._idle = False
        self._held_back = False
        self._sent_at = 0.0
        self._look: moment.Look | None = None
        self.blocking = False
        self.in_line = False  # tenants stand in line in one of the queues

    def command(
        self,
        queues: Sequence[str],
        expires: Mapping[str, int],
        count: int,
        acks: Sequence[str],
        block_ms: int = BLOCK_MS,
        in_line: int | None = None,
    ) -> tuple[Any, ...]:
        """The next command to send.

        Args:
            queues: to read, in turn.
            expires: ms after which a queue expires unused, for those that do.
            count: most messages to read.
            acks: tags to acknowledge on the way; leave them out when `blocks` says so.
            block_ms: ms to wait when there was nothing.
            in_line: most messages to read where tenants stand in line; None: `count`.
        """
        self.blocking = self._empty
        if self._empty:
            self._empty = False  # look again afterwards, also for queues that were paused or resumed
            keys = [key for queue in queues if queue not in self._paused for key in self._of(queue)]
            self._idle = not keys
            if self._idle:  # all are paused: wait for nothing, as long as one waits for a message
                return ("BLPOP", f"{self._keys.prefix}q:none", block_ms / 1000)
            new = [">"] * len(keys)
            group = ("XREADGROUP", "GROUP", GROUP, self._reader)
            return (*group, "COUNT", 1, "BLOCK", block_ms, "STREAMS", *keys, *new)
        self._sent_at = monotonic()
        script = ("EVALSHA", READ.digest) if self._known else ("EVAL", READ.text)
        self._held_back = in_line == 0
        return (*script, 0, *self.arguments(queues, expires, count, acks, in_line))

    def arguments(
        self,
        queues: Sequence[str],
        expires: Mapping[str, int],
        count: int,
        acks: Sequence[str],
        in_line: int | None = None,
    ) -> list[Any]:
        """Those of the script that reads."""
        named = [part for queue in queues for part in (queue, expires.get(queue, 0))]
        return [
            self._keys.prefix, self._reader, count, count if in_line is None else in_line,
            turn(self._number), leases.SECONDS * 1000, len(queues), *named, *grouped(acks),
        ]  # fmt: skip

    @property
    def blocks(self) -> bool:
        """Whether the next command is the one that waits."""
        return self._empty

    def reply(self, reply: Any) -> tuple[Streams, list[str]]:
        """What the server answered to the last command: entries by stream, and what went wrong."""
        if self.blocking:
            if not reply or self._idle:
                return [], []
            # A list in RESP2, a map in RESP3.
            return _decoded(reply.items() if isinstance(reply, dict) else reply), []
        streams, paused, problems = opened(reply)
        self.in_line = bool(reply[3])
        self._known, self._paused = True, frozenset(paused)
        # Who holds enough is given nothing where tenants stand in line, and must not wait for what comes.
        self._empty = not streams and not (self.in_line and self._held_back)
        self._look = None if streams else moment.Look(self._sent_at, reply[4])
        if streams:
            self._number += 1
        return streams, problems

    def fresh_until(self, entry: str) -> float:
        """When the moment of sending is over for an entry that was waited for: see `moment.ends`."""
        return 0.0 if self._look is None or not self.blocking else moment.ends(self._look, entry, monotonic())

    def refused(self) -> None:
        """The server said no to the last command: the next one brings the script, which heals what it can."""
        self._empty = self._known = False

    def _of(self, queue: str) -> list[str]:
        found = self._streams.get(queue)
        if found is None:
            found = self._streams[queue] = streams_of(self._keys, queue)
        return found


def opened(reply: Any) -> tuple[Streams, list[str], list[str]]:
    """What the script that reads answered: entries by stream, the queues that are paused, what went wrong."""
    streams, paused, problems, *_ = reply
    return _decoded(streams), [name.decode() for name in paused], [text.decode() for text in problems]


def _decoded(pairs: Any) -> Streams:
    return [
        (stream.decode(), [(entry.decode(), fields) for entry, fields in entries])
        for stream, entries in pairs
    ]
