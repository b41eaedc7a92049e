"""A connection of a thread's own, for one call at a time: no pool, no client before the socket.

redis-py's client costs nearly as much again as the round trip itself (taking a connection from the pool,
looking whether it is good, response callbacks). Who calls thousands of times a second goes without.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from errands.broker.errors import NotHeard

_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)


class Line(threading.local):
    """Calls of one server.

    Args:
        url: the server's address, as redis-py reads it.
        silence: seconds without an answer after which a call counts as not heard.
    """

    def __init__(self, url: str, silence: float) -> None:
        self._pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=silence,
            socket_connect_timeout=min(silence, 0.25),
            health_check_interval=0,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection: Any = None
        self._owner = 0

    def call(self, command: list[Any]) -> Any:
        """Send one command and return its reply.

        Raises:
            NotHeard: it was written, and nobody knows whether it was done.
            redis.ConnectionError: the server is away; nothing was done.
            redis.ResponseError: the server refused it.
        """
        connection = self._connection
        if connection is None or self._owner != os.getpid():  # a child must not speak on its parent's line
            connection = self._connection = self._pool.make_connection()
            self._owner = os.getpid()
        try:
            connection.connect()  # does nothing where it is connected
            connection.send_packed_command(packed(command), check_health=False)
        except _AWAY as exc:
            connection.disconnect()
            raise redis.ConnectionError(str(exc)) from exc
        try:
            return connection.read_response()
        except redis.ResponseError:
            raise
        except _AWAY as exc:
            connection.disconnect()
            raise NotHeard(str(exc)) from exc
        except BaseException:
            # Cut off while it waited (a time limit, Ctrl-C): its answer is not the next call's.
            connection.disconnect()
            raise


def packed(command: list[Any]) -> list[bytes]:
    """A command as it is written to the server. redis-py's own packing looks at each argument three times."""
    return [hiredis.pack_command(tuple(command))]


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
