"""A connection of an event loop's own. What is said goes out at once, and whoever waits for the replies is
called in the turn of the loop that brings them.

asyncio's streams, and redis-py's client on top of them, take two or three turns and a dozen steps for that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio

from errands.broker.errors import NotHeard
from errands.broker.line import reader

_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)

Heard = Callable[["list[Any] | NotHeard"], object]


class LoopLine(asyncio.Protocol):
    """Commands of one loop to one server, and its replies in their order.

    redis-py makes the connection (address, TLS, password, name); then its transport is ours. What is relied
    on of it is `_writer.transport`; `tests/integration/test_loop_line.py` tells us when that changes.

    Args:
        url: the server's address, as redis-py reads it.
        silence: seconds without a byte of what is waited for, after which nothing more is.
        loop: the loop; everything here is called on it.
    """

    def __init__(self, url: str, silence: float, loop: asyncio.AbstractEventLoop) -> None:
        pool: Any = redis.asyncio.ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=min(silence, 0.25), health_check_interval=0,
            protocol=2,
        )  # fmt: skip
        self._connection: Any = pool.make_connection()  # opened again and again
        self._silence = silence
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader: Any = None
        self._replies: list[Any] = []
        self._expected: deque[tuple[int, Heard]] = deque()
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def connected(self) -> bool:
        """Whether something can be said."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def gone_out(self) -> bool:
        """Whether all that was said is with the kernel: it arrives even if this process ends now."""
        return self._transport is not None and self._transport.get_write_buffer_size() == 0

    async def connect(self) -> None:
        """Connect, if it is not connected.

        Raises:
            redis.ConnectionError: the server is away, or does not speak.
        """
        if self.connected:
            return
        if self._expected:  # the loop has yet to tell that the connection before is gone
            self._lose(ConnectionError("the server closed the connection"))
        try:
            async with asyncio.timeout(self._silence):  # a frozen server lets its clients connect
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()
        except _AWAY as exc:  # asyncio's TimeoutError is an OSError
            await self._connection.disconnect(nowait=True)
            raise redis.ConnectionError(str(exc) or f"no answer within {self._silence} s") from exc
        self._reader, self._replies = reader(), []
        self._transport = self._connection._writer.transport
        self._transport.set_protocol(self)

    def send(self, commands: bytes, count: int, heard: Heard) -> None:
        """Say `commands`, which are packed.

        Args:
            count: of the commands.
            heard: called with as many replies, errors that the server replies among them, or with the reason
                why nobody knows what became of the commands.

        Raises:
            redis.ConnectionError: the line is not connected.
        """
        if self._transport is None or not self.connected:
            raise redis.ConnectionError("the connection was lost")
        if not self._expected:
            self._heard_at = self._loop.time()
        self._expected.append((count, heard))
        self._transport.write(commands)
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence, self._look)

    def hang_up(self) -> None:
        """Close the connection, and wait for nothing more."""
        self._expected.clear()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._heard_at = self._loop.time()
        self._reader.feed(data)
        transport = self._transport
        while self._expected and transport is self._transport:  # who hears may hang up
            try:
                reply = self._reader.gets()
            except redis.RedisError as exc:  # it does not speak the protocol
                self._lose(exc)
                return
            if reply is False:
                return
            self._replies.append(reply)
            count, heard = self._expected[0]
            if len(self._replies) == count:
                self._expected.popleft()
                replies, self._replies = self._replies, []
                heard(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._transport is None or not self._transport.is_closing():
            return  # it was hung up, and perhaps made anew
        self._lose(exc or ConnectionError("the server closed the connection"))

    # -- silence

    def _look(self) -> None:
        self._timer = None
        if not self._expected:
            return
        rest = self._heard_at + self._silence - self._loop.time()
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._look)
        else:
            self._lose(TimeoutError(f"no answer within {self._silence} s"))

    def _lose(self, why: Exception) -> None:
        expected = list(self._expected)
        self.hang_up()
        for _, heard in expected:
            problem = NotHeard(str(why))
            problem.__cause__ = why
            heard(problem)
