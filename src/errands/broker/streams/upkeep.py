"""What a process does for its queues beside reading them, in a thread of its own.

It tells acknowledgements, renews the lease, moves what is due, rescues what the dead hold, gives back what
the server says this process holds and it knows nothing of, tells dead letters, and adopts lists. The thread
is alive also when the worker's loop is busy: a slow worker is not a dead one.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import redis

from errands.broker import leases
from errands.broker.streams import dead_letters
from errands.broker.streams.holdings import Holdings
from errands.broker.streams.layout import GROUP, tag_of
from errands.broker.streams.scripts import UPKEEP

logger = logging.getLogger("errands.transport")

SWEEP_SECONDS = 2.0
# Sweeps further apart than this were interrupted: see `may_rescue` in lua/upkeep.lua.
INTERRUPTED_SECONDS = 5.0
# A reply may be on its way; what the server has noted for so long and nobody here knows of is lost.
_UNKNOWN_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
_ACK_SECONDS = 0.1
_MOVES = 500

_lock = threading.RLock()
_all: dict[tuple[Any, ...], Upkeep] = {}


def upkeep_for(identity: tuple[Any, ...], make: Callable[[], Upkeep], channel: Any) -> Upkeep:
    """The upkeep of this process at the broker of this identity, with its thread running for `channel`.

    Args:
        identity: of the broker, the prefix of keys and the reader.
        make: called when there is none yet.
        channel: as long as it is open, the upkeep goes on.

    Raises:
        redis.RedisError, OSError: the server does not answer, and there is no lease to read under.
    """
    with _lock:
        found = _all.get(identity)
        if found is None:
            found = make()
            found.hold_lease()
            _all[identity] = found
        found.holdings.channels.add(channel)
        found.start()
        return found


class Upkeep:
    """The upkeep of one process at one broker.

    Args:
        holdings: what the process holds there.
        list_prefix: what the names of stock lists begin with (kombu's `global_keyprefix`).
        separator: between a stock list's name and its priority.
    """

    def __init__(self, holdings: Holdings, *, list_prefix: str = "", separator: str = "\x06\x16") -> None:
        self.holdings = holdings
        self._lists = (list_prefix, separator)
        self._next_round = self._next_renewal = self._next_sweep = 0.0
        self._failing = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """See that the thread runs."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="errands-upkeep")
            self._thread.start()

    def hold_lease(self) -> None:
        """Renew the lease now: it must be there before anything is read. One round trip.

        Raises:
            redis.RedisError, OSError: the server does not answer.
        """
        lease = self.holdings.keys.lease(self.holdings.reader)
        try:
            self.holdings.client.set(lease, 1, ex=leases.SECONDS)
        except redis.OutOfMemoryError:
            # To read is what makes room. Nobody can sweep either while the server is full.
            logger.warning("the broker is full: reading without a lease until there is room")

    def end(self) -> None:
        """The process ends: tell what is to be told, and let go of the lease. Not when the broker is away."""
        if self._failing or self._stopped:
            return
        self._stopped = True
        holdings = self.holdings
        try:
            holdings.flush()
            holdings.client.delete(holdings.keys.lease(holdings.reader))
        except Exception as exc:  # noqa: BLE001 — whatever it is, the lease runs out by itself
            logger.warning("could not let go of the lease: %s", exc)
        holdings.client.close()
        holdings.client.connection_pool.disconnect(inuse_connections=False)

    def round(self, *, sweep: bool = False, renew: bool = False) -> float:
        """Do once what there is to do. One round trip, more where something is moved.

        Returns:
            Seconds until the next delayed message is due, half a second at most.

        Raises:
            redis.RedisError, OSError: the server does not answer.
        """
        holdings, options = self.holdings, self.holdings.options
        holdings.flush()
        due, more, held, untold = UPKEEP.run(
            holdings.client,
            holdings.keys.prefix,
            holdings.reader,
            int(leases.SECONDS * 1000) if renew else 0,
            int(sweep),
            options.max_deliveries,
            options.dead_letters_max,
            _MOVES,
            int(leases.SECONDS * 1000),
            int(INTERRUPTED_SECONDS * 1000),
            int(options.adopt_lists),
            *self._lists,
            *sorted(holdings.queues),
        )
        if held:
            self._reconcile({held[i].decode(): int(held[i + 1]) for i in range(0, len(held), 2)})
        if untold:
            dead_letters.tell(holdings, untold)
        if more:
            return 0.0
        return min(_PAUSE_SECONDS, due / 1000) if due >= 0 else _PAUSE_SECONDS

    def _reconcile(self, noted: dict[str, int]) -> None:
        """Give back what the server has noted as ours and we know nothing of: its reply was lost."""
        holdings = self.holdings
        doubtful = [stream for stream, count in noted.items() if count > holdings.count(stream)]
        if not doubtful:
            return
        # What a read brought that nobody has looked at yet is not lost.
        idle = int(1000 * max(_UNKNOWN_SECONDS, holdings.oldest_read + 1.0))
        with holdings.client.pipeline(transaction=False) as pipe:
            for stream in doubtful:
                pipe.xpending_range(stream, GROUP, "-", "+", 10_000, holdings.reader, idle=idle)
            found: Any = pipe.execute()
        lost = [
            tag_of(stream, entry)
            for stream, rows in zip(doubtful, found, strict=True)
            for row in rows
            if not holdings.holds(stream, entry := row["message_id"].decode())
        ]
        if lost:
            logger.info("giving back %d messages whose delivery was lost with a connection", len(lost))
            holdings.give_back(lost)
            holdings.flush()

    def _run(self) -> None:
        holdings, wait = self.holdings, 0.0
        while not self._retired():
            if holdings.wake.wait(wait):
                # More will come: what ends within the next tenth of a second goes along.
                holdings.hurry.wait(_ACK_SECONDS)
                holdings.hurry.clear()
                holdings.wake.clear()
            wait = self._try()

    def _try(self) -> float:
        """A round that does not end the thread when it fails. Returns the seconds until the next."""
        now = monotonic()
        try:
            if now < self._next_round:
                self.holdings.flush()
            else:
                sweep, renew = now >= self._next_sweep, now >= self._next_renewal
                self._next_round = now + self.round(sweep=sweep, renew=renew)
                if sweep:
                    self._next_sweep = now + SWEEP_SECONDS
                if renew:
                    self._next_renewal = now + leases.RENEW_SECONDS
        except Exception as exc:
            if not self._failing:  # once, not twice a second
                away = isinstance(exc, (redis.ConnectionError, redis.TimeoutError, OSError))
                logger.warning("upkeep of queues failed, going on: %s", exc, exc_info=not away)
            self._failing = True
            self.holdings.wake.clear()
            # Another server may be the right one by now.
            self.holdings.client.connection_pool.disconnect(inuse_connections=False)
            return _PAUSE_SECONDS
        if self._failing:
            logger.info("upkeep of queues works again")
            self._failing = False
        return max(0.0, self._next_round - monotonic())

    def _retired(self) -> bool:
        """Whether nobody reads here any more and nothing is held: the lease goes, and the thread ends."""
        with _lock:
            if not self._stopped and not len(self.holdings.channels) and self.holdings.empty:
                for identity in [key for key, upkeep in _all.items() if upkeep is self]:
                    del _all[identity]
                self.end()
                self._stopped = True
            return self._stopped


def _end_all() -> None:
    for upkeep in list(_all.values()):
        upkeep.end()


def _after_fork() -> None:
    """A child answers for nothing that its parent holds, and must not touch its parent's connections."""
    global _lock
    _lock = threading.RLock()
    _all.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_after_fork)
