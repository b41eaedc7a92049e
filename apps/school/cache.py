"""A small cache with counters: in Valkey, or in memory where nothing is sent anywhere (inline mode)."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import redis

from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.core import clock

logger = logging.getLogger(__name__)


class Cache(Protocol):
    """Keeps texts for a time, and counts. Losing it loses nothing: what it holds can be worked out again."""

    async def get(self, key: str) -> str | None:
        """What was set under `key`, while its time lasts."""
        ...

    async def set(self, key: str, value: str, seconds: int) -> None:
        """Keep `value` for so many seconds."""
        ...

    async def count(self, purpose: str, who: str, seconds: int) -> int:
        """How often this was called for `who` in the present window of `seconds`, this call included."""
        ...


class ValkeyCache:
    """In Valkey, under the app's prefix. While Valkey is away, nothing is known and nobody is held up."""

    def __init__(self, clients: Clients, keys: Keys) -> None:
        self._clients = clients
        self._keys = keys

    async def get(self, key: str) -> str | None:
        try:
            raw = await asyncio.to_thread(self._clients.sync.get, self._key(key))
        except redis.RedisError as exc:
            logger.warning("the cache does not answer: %s", exc)
            return None
        return raw.decode() if isinstance(raw, bytes) else None

    async def set(self, key: str, value: str, seconds: int) -> None:
        try:
            await asyncio.to_thread(self._clients.sync.set, self._key(key), value, ex=seconds)
        except redis.RedisError as exc:
            logger.warning("the cache does not answer: %s", exc)

    async def count(self, purpose: str, who: str, seconds: int) -> int:
        key = self._keys.throttle(purpose, f"{who}:{int(clock.timestamp() // seconds)}")
        try:
            return await asyncio.to_thread(self._count, key, seconds)
        except redis.RedisError as exc:
            logger.warning("the cache does not answer, nothing is counted: %s", exc)
            return 0

    def _key(self, key: str) -> str:
        return f"{self._keys.prefix}school:{key}"

    def _count(self, key: str, seconds: int) -> int:
        with self._clients.sync.pipeline(transaction=True) as pipe:
            pipe.incr(key)
            pipe.expire(key, seconds)
            return int(pipe.execute()[0])


class MemoryCache:
    """In this process alone."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, float]] = {}
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}

    async def get(self, key: str) -> str | None:
        value, until = self._values.get(key, ("", 0.0))
        return value if until > clock.timestamp() else None

    async def set(self, key: str, value: str, seconds: int) -> None:
        self._values[key] = (value, clock.timestamp() + seconds)

    async def count(self, purpose: str, who: str, seconds: int) -> int:
        window = int(clock.timestamp() // seconds)
        before, counted = self._counts.get((purpose, who), (window, 0))
        counted = counted + 1 if before == window else 1
        self._counts[purpose, who] = (window, counted)
        return counted
