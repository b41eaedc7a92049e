"""What this process has taken from a broker, and what of it is settled but not told yet.

There is one per process and broker. It outlives channels: a task that was running when the connection broke
acknowledges its message after that, and nobody else may have been given it in between.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Iterable
from time import monotonic
from typing import Any

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.streams.layout import split_tag
from errands.broker.streams.options import Options
from errands.broker.streams.scripts import SETTLE

# Acknowledgements are told when there are so many, or 100 ms after the first: see Upkeep.
_BATCH = 100
_CALL_MAX = 1000


class Holdings:
    """The messages that this process answers for.

    Args:
        client: a client of its own, whose socket has a time-out. Used by several threads.
        keys: names of keys.
        reader: the consumer that the messages were given to.
        options: of the transport.
    """

    def __init__(self, client: Client, keys: Keys, reader: str, options: Options) -> None:
        self.client = client
        self.keys = keys
        self.reader = reader
        self.options = options
        self.queues: set[str] = set()
        self.channels: weakref.WeakSet[Any] = weakref.WeakSet()
        self._held: defaultdict[str, set[str]] = defaultdict(set)
        self._acks: deque[str] = deque()
        self._backs: deque[str] = deque()
        # Wakes the upkeep: something is to be told; `hurry`: at once.
        self.wake = threading.Event()
        self.hurry = threading.Event()

    # -- what is held

    def take(self, stream: str, entries: Iterable[str]) -> None:
        """From now on this process answers for these entries."""
        self._held[stream].update(entries)

    def holds(self, stream: str, entry: str) -> bool:
        """Whether this process knows that it holds the entry."""
        return entry in self._held[stream]

    def count(self, stream: str) -> int:
        """How many entries of a stream are held."""
        return len(self._held[stream])

    @property
    def empty(self) -> bool:
        """True when nothing is held, and nothing is to be told."""
        return not self._acks and not self._backs and not any(self._held.values())

    @property
    def oldest_read(self) -> float:
        """Seconds since the oldest read was sent whose reply nobody has looked at yet; 0 for none."""
        sent = [at for channel in tuple(self.channels) if (at := channel.read_sent_at) is not None]
        return monotonic() - min(sent) if sent else 0.0

    # -- settling

    def acknowledge(self, tag: str, *, urgent: bool = False) -> None:
        """The message is done with. Told within 100 ms, or at once."""
        self._acks.append(tag)
        if urgent or len(self._acks) >= _BATCH:
            self.hurry.set()
        if not self.wake.is_set():
            self.wake.set()

    def give_back(self, tags: Iterable[str]) -> None:
        """The messages go to the front of their level. Told at once, as soon as the server answers."""
        self._backs.extend(tags)
        self.hurry.set()
        self.wake.set()

    def take_acks(self) -> list[str]:
        """Acknowledgements for somebody who tells them along with something else: see `told`, `not_told`."""
        return _drain(self._acks)

    def told(self, tags: Iterable[str]) -> None:
        """The server knows that these are settled."""
        for tag in tags:
            stream, entry = split_tag(tag)
            self._held[stream].discard(entry)

    def not_told(self, acks: Iterable[str]) -> None:
        """Nobody knows whether the server heard it. Telling it twice does no harm."""
        self._acks.extendleft(acks)
        self.wake.set()

    def flush(self) -> None:
        """Tell everything that is to be told. A round trip for each thousand.

        Raises:
            redis.RedisError, OSError: the server does not answer; it will be told later.
        """
        while self._acks or self._backs:
            backs, acks = _drain(self._backs), _drain(self._acks)
            try:
                # In the order they came in, so that the oldest is first again.
                pairs = [part for tag in backs for part in split_tag(tag)]
                SETTLE.run(
                    self.client, self.options.max_deliveries, self.options.dead_letters_max, len(backs),
                    *pairs, *grouped(acks),
                )  # fmt: skip
            except BaseException:
                self._backs.extendleft(reversed(backs))
                self._acks.extendleft(acks)
                raise
            self.told(backs)
            self.told(acks)


def grouped(tags: Iterable[str]) -> list[str | int]:
    """Tags as the scripts take them: stream, number of entries, the entries."""
    streams: dict[str, list[str]] = {}
    for tag in tags:
        stream, entry = split_tag(tag)
        if stream in streams:
            streams[stream].append(entry)
        else:
            streams[stream] = [entry]
    arguments: list[str | int] = []
    for stream, entries in streams.items():
        arguments += (stream, len(entries), *entries)
    return arguments


def _drain(tags: deque[str]) -> list[str]:
    found: list[str] = []
    try:
        while len(found) < _CALL_MAX:
            found.append(tags.popleft())
    except IndexError:
        pass  # another thread may have been faster with the last one
    return found
