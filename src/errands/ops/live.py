"""The event stream as it grows: read once in each process, for all who listen."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import redis

from errands.broker.client import AsyncClient, Clients
from errands.broker.events import START, follow
from errands.core.events import Event
from errands.ops.probes import broker_errors

logger = logging.getLogger("errands.live")

_BUFFER = 256  # events that a watcher may be behind
_BLOCK_MS = 2_000  # shorter than the client's socket time-out
_RECONNECT_SECONDS = 1.0

Found = tuple[str, Event]


class FellBehind(Exception):
    """A watcher was too slow; what it missed is in the stream."""


class Subscription:
    """What happens to one run from now on. Close it."""

    def __init__(self, follower: Follower, run_id: str) -> None:
        self.run_id = run_id
        self._follower = follower
        self._queue: asyncio.Queue[Found] = asyncio.Queue(_BUFFER)
        self._full = False

    def put(self, found: Found) -> None:
        """Called by the follower; never waits."""
        try:
            self._queue.put_nowait(found)
        except asyncio.QueueFull:
            self._full = True
            self._follower.drop(self)

    async def get(self, seconds: float) -> Found:
        """The next event.

        Raises:
            TimeoutError: there was none for so many `seconds`.
            FellBehind: events were lost here, since they were not fetched in time.
        """
        if self._full and self._queue.empty():
            raise FellBehind
        async with asyncio.timeout(seconds):
            return await self._queue.get()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._follower.drop(self)


class Follower:
    """Reads the stream once, while anybody listens, and hands each event to those who watch its run.

    Bound to one event loop.
    """

    def __init__(self, clients: Clients, key: str) -> None:
        self._clients = clients
        self._key = key
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def watched(self) -> int:
        """How many runs are being watched."""
        return len(self._subscriptions)

    async def subscribe(self, run_id: str) -> Subscription:
        """Listen to a run; all that is written after this returns will be heard.

        Raises:
            BrokerUnavailable: Valkey does not answer.
        """
        subscription = Subscription(self, run_id)
        self._subscriptions.setdefault(run_id, set()).add(subscription)
        try:
            async with self._starting:
                if self._task is None or self._task.done():
                    await self._start()
        except BaseException:
            subscription.close()
            raise
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """Forget a subscription; with the last one, stop reading."""
        others = self._subscriptions.get(subscription.run_id)
        if others is not None:
            others.discard(subscription)
            if not others:
                del self._subscriptions[subscription.run_id]
        if not self._subscriptions and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _start(self) -> None:
        client = self._clients.asyncio()
        try:
            with broker_errors():
                rows: Any = await client.xrevrange(self._key, count=1)
        except BaseException:
            await client.aclose()
            raise
        after = rows[0][0].decode() if rows else START
        self._task = asyncio.create_task(self._read(client, after), name="errands-live")

    async def _read(self, client: AsyncClient, after: str) -> None:
        failing = False
        try:
            while True:
                try:
                    async for entry in follow(client, self._key, after, _BLOCK_MS):
                        if asyncio.current_task() is not self._task:
                            return  # cancelled, which redis-py does not always let through
                        failing = False
                        if entry is not None:
                            after = entry[0]
                            self._hand_out(after, entry[1])
                except (redis.RedisError, OSError) as exc:
                    if not failing:  # once, not every second
                        logger.warning("live events are interrupted, going on when Valkey is back: %s", exc)
                    failing = True
                    await asyncio.sleep(_RECONNECT_SECONDS)
        finally:
            with suppress(redis.RedisError, OSError):
                await client.aclose()

    def _hand_out(self, entry_id: str, event: Event | None) -> None:
        if event is not None:
            for subscription in tuple(self._subscriptions.get(event.run_id, ())):
                subscription.put((entry_id, event))
