"""Connections to Valkey: one client per process, made again after a fork."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

if TYPE_CHECKING:
    Client = redis.Redis
    AsyncClient = redis.asyncio.Redis
else:
    Client, AsyncClient = redis.Redis, redis.asyncio.Redis

# A server that is away must not hold a web request: two quick tries, then the caller hears of it.
_CONNECT_SECONDS = 0.25
_TRIES = 2


class Clients:
    """Makes and keeps the clients of one address.

    A connection must not be shared over a fork: each process gets its own on first use.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._owner = 0
        self._client: Client | None = None

    @property
    def sync(self) -> Client:
        """The client of this process. Thread-safe."""
        if self._client is None or self._owner != os.getpid():
            self._client = redis.Redis.from_url(
                self.url,
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=5.0,
                health_check_interval=30,
                retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), _TRIES),
            )
            self._owner = os.getpid()
        return self._client

    def blocking(self, **options: Any) -> Client:
        """A client of its own for a thread that waits on the server (`XREAD BLOCK`)."""
        return redis.Redis.from_url(self.url, socket_connect_timeout=_CONNECT_SECONDS, **options)

    def asyncio(self) -> AsyncClient:
        """A new asyncio client, bound to the running loop; the caller closes it."""
        client: AsyncClient = redis.asyncio.Redis.from_url(
            self.url, socket_connect_timeout=_CONNECT_SECONDS, health_check_interval=30
        )
        return client
