"""A connection of a thread's own, for one call at a time: no pool, no client before the socket.

redis-py's client costs nearly as much again as the round trip itself (taking a connection from the pool,
looking whether it is good, response callbacks). Who calls thousands of times a second goes without.
"""

from __future__ import annotations

import _socket
import os
import socket
import struct
import threading
import time
from typing import Any

import hiredis
import redis
from redis._parsers.base import BaseParser
from redis.backoff import NoBackoff
from redis.retry import Retry

from errands.broker.errors import NotHeard

_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)
_CHUNK = 65536


class Pending:
    """The replies to what was sent; whoever wants them takes them when it suits him."""

    __slots__ = ("_count", "_line", "_outcome")

    def __init__(self, line: Line, count: int) -> None:
        self._line: Line | None = line
        self._count = count
        self._outcome: list[Any] | redis.RedisError = []

    def look(self) -> None:
        """Take the replies off the line, for something else is to be sent."""
        line, self._line = self._line, None
        if line is None:
            return
        try:
            self._outcome = line.read(self._count)
        except redis.RedisError as exc:
            self._outcome = exc

    def receive_all(self) -> list[Any]:
        """Wait for the replies. Errors that the server replied are among them.

        Raises:
            NotHeard: nobody knows whether what was sent was done.
        """
        self.look()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def receive(self) -> Any:
        """Wait for the reply.

        Raises:
            NotHeard: nobody knows whether the command was done.
            redis.ResponseError: the server refused it.
        """
        reply = self.receive_all()[-1]
        if isinstance(reply, Exception):
            raise reply
        return reply


class Line(threading.local):
    """Calls of one server.

    redis-py makes the connection (address, TLS, password, name); from then on commands and replies go past
    it: its own way through a reply costs as much as making the command. What is relied on of it is `_sock`;
    `tests/unit/test_line.py` tells us when that changes.

    Args:
        url: the server's address, as redis-py reads it.
        silence: seconds without an answer after which a call counts as not heard.
    """

    def __init__(self, url: str, silence: float) -> None:
        self._silence = silence
        self._pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=silence,
            socket_connect_timeout=min(silence, 0.25),
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._connection: Any = None
        self._socket: Any = None
        self._reader: Any = None
        self._owner = 0
        self._last: Pending | None = None  # whose reply may still be on the line

    def call(self, command: list[Any]) -> Any:
        """Send one command and return its reply.

        Raises:
            NotHeard: it was written, and nobody knows whether it was done.
            redis.ConnectionError: the server is away; nothing was done.
            redis.ResponseError: the server refused it.
        """
        return self.send(command).receive()

    def send(self, command: list[Any]) -> Pending:
        """Send one command. What is returned waits for its reply, now or later.

        Raises:
            redis.ConnectionError: the server is away; nothing was done.
        """
        return self.send_packed(hiredis.pack_command(tuple(command)), 1)

    def send_packed(self, commands: bytes, count: int) -> Pending:
        """`send`, of `count` commands that are packed already."""
        if self._owner != os.getpid():  # what the parent waits for is none of its child's business
            self._socket = self._last = None
        elif self._last is not None:
            self._last.look()
        try:
            if self._socket is None:
                self._connect()
            self._socket.sendall(commands)
        except _AWAY as exc:
            self.hang_up()
            cause = _cause(exc)
            raise redis.ConnectionError(str(cause)) from cause
        self._last = Pending(self, count)
        return self._last

    def read(self, count: int) -> list[Any]:
        """The next `count` replies on the line; an error that the server replies is one as well.

        Raises:
            NotHeard: nobody knows whether what was sent was done.
        """
        self._last = None
        reader, replies = self._reader, []
        try:
            while True:
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
                    if len(replies) == count:
                        return replies
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise redis.ConnectionError("the server closed the connection")
                reader.feed(data)
        except _AWAY as exc:
            self.hang_up()
            cause = _cause(exc)
            raise NotHeard(str(cause)) from cause
        except BaseException:
            # Cut off while it waited (a time limit, Ctrl-C): its answer is not the next call's.
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """Close the connection; the next call opens it again."""
        self._socket = self._reader = None
        if self._connection is not None and self._owner == os.getpid():
            self._connection.disconnect()

    def _connect(self) -> None:
        # One connection, opened again and again: a pool counts those that it ever made, and makes a hundred.
        # A child must not speak on its parent's line, nor hang it up.
        if self._connection is None or self._owner != os.getpid():
            self._connection, self._owner = self._pool.make_connection(), os.getpid()
        self._connection.connect()
        self._socket = self._connection._sock
        _let_kernel_watch(self._socket, self._silence)
        self._reader = reader()


def reader() -> Any:
    """What takes a server's replies (RESP2) to pieces. An error that it replies is one of redis-py's."""
    return hiredis.Reader(protocolError=redis.InvalidResponse, replyError=_error_of)


def _let_kernel_watch(connected: socket.socket, seconds: float) -> None:
    """Have the kernel say when `seconds` are over without a byte, where it can.

    A socket with a time-out of Python's own asks the kernel twice for all it does: whether it may, and to do
    it. On a round trip that is a tenth of the time. TLS, gevent and their like go on with Python's.
    """
    plain = type(connected).recv is _socket.socket.recv
    if plain and struct.calcsize("l") == 8:  # elsewhere a time is written in another way
        at_most = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, at_most)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, at_most)
        connected.settimeout(None)


def _cause(error: Exception) -> Exception:
    """`error`, or what it stands for: that the kernel's time is over."""
    return TimeoutError("timed out") if isinstance(error, BlockingIOError) else error


def _error_of(text: str) -> Exception:
    """The exception for an error that the server replies, by redis-py's own table."""
    error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


def pauses(patience: float) -> Any:
    """Waits between tries, and yields how many there were, until `patience` seconds are over.

    The pauses grow from 20 ms to a second. At least two tries are made: a connection that the server closed
    long ago is found out by using it.
    """
    deadline = time.monotonic() + patience
    tries = 0
    while tries < 2 or time.monotonic() < deadline:
        if tries:
            time.sleep(min(0.01 * 2**tries, 1.0, max(0.0, deadline - time.monotonic())))
        yield tries
        tries += 1
