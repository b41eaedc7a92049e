"""Connections for synchronous code on a worker's event loop: they wait without holding the loop up.

Celery's own code (parts of chords, callbacks, retries, results of an unusual kind) speaks to the server
through redis-py's synchronous client. In a task on the loop that code runs in a greenlet
(`errands.core.green`), and a connection of these classes steps aside while it waits for the server.
Everywhere else it is an ordinary connection, at the cost of one look.

Who makes a client hands it `connection_class=green(the class it would take)`, or `greened(parameters)`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import redis

from errands.core.green import in_green, wait


class GreenSocket:
    """A socket whose waiting gives the loop back, inside of a greenlet of `errands.core.green`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv_into(self, buffer: Any, *args: Any) -> int:
        """As the socket's own."""
        if not in_green():
            return int(self._inner.recv_into(buffer, *args))
        return int(self._patiently(self._inner.recv_into, buffer, *args))

    def recv(self, *args: Any) -> bytes:
        """As the socket's own."""
        received: bytes = self._patiently(self._inner.recv, *args) if in_green() else self._inner.recv(*args)
        return received

    def sendall(self, data: Any) -> None:
        """As the socket's own."""
        if not in_green():
            self._inner.sendall(data)
            return
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self._patiently(self._inner.send, rest, writes=True) :]

    def _patiently(self, call: Any, *args: Any, writes: bool = False) -> Any:
        """`call` without blocking, as often as it takes."""
        seconds = self._inner.gettimeout()
        if seconds == 0:  # whoever made it so does not want to wait
            return call(*args)
        self._inner.settimeout(0)
        try:
            while True:
                try:
                    return call(*args)
                except ssl.SSLWantWriteError:
                    wait(self._ready(seconds, writes=True))
                except ssl.SSLWantReadError:
                    wait(self._ready(seconds, writes=False))
                except BlockingIOError:
                    wait(self._ready(seconds, writes=writes))
        finally:
            self._inner.settimeout(seconds)

    async def _ready(self, seconds: float | None, *, writes: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        number = self._inner.fileno()
        add, remove = (
            (loop.add_writer, loop.remove_writer) if writes else (loop.add_reader, loop.remove_reader)
        )
        add(number, lambda: None if ready.done() else ready.set_result(None))
        try:
            async with asyncio.timeout(seconds):
                await ready
        except TimeoutError:
            raise socket.timeout("timed out") from None  # noqa: UP041 — what redis-py looks for
        finally:
            remove(number)


class _Green:
    """A connection on a `GreenSocket`. Its connecting (names, TLS) is done in a thread."""

    def _connect(self) -> Any:
        connect = super()._connect  # type: ignore[misc]
        return GreenSocket(wait(asyncio.to_thread(connect)) if in_green() else connect())


class GreenConnection(_Green, redis.Connection):
    """Over TCP."""


class GreenSSLConnection(_Green, redis.SSLConnection):
    """Over TLS."""


class GreenUnixConnection(_Green, redis.UnixDomainSocketConnection):
    """Over a Unix socket."""


def green(kind: type[Any]) -> type[Any]:
    """The connection class to take in place of `kind`; a class of somebody else's gets a green child."""
    if issubclass(kind, _Green):
        return kind
    known: dict[type[Any], type[Any]] = {
        redis.Connection: GreenConnection,
        redis.SSLConnection: GreenSSLConnection,
        redis.UnixDomainSocketConnection: GreenUnixConnection,
    }
    return known.get(kind) or type(f"Green{kind.__name__}", (_Green, kind), {})


def greened(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a connection pool, with a connection class that does not hold up the loop."""
    return {**parameters, "connection_class": green(parameters.get("connection_class") or redis.Connection)}
