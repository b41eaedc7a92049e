"""What we rely on inside of redis-py to speak past it: see `errands.broker.line`."""

from __future__ import annotations

import os
import socket

import pytest
import redis

from errands.broker.errors import NotHeard
from errands.broker.line import Line


def test_the_connection_has_a_socket(valkey_url: str) -> None:
    line = Line(valkey_url, 1.0)
    assert line.call(["PING"]) == b"PONG"
    assert isinstance(line._socket, socket.socket)


def test_errors_are_those_of_redis_py(valkey_url: str) -> None:
    line = Line(valkey_url, 1.0)
    with pytest.raises(redis.exceptions.NoScriptError):
        line.call(["EVALSHA", "0" * 40, 0])
    with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
        line.call(["GET"])
    assert line.call(["ECHO", "x" * 200_000]) == b"x" * 200_000  # in several pieces


def test_a_line_that_was_cut_is_made_anew(valkey_url: str) -> None:
    line = Line(valkey_url, 1.0)
    line.call(["PING"])
    line._socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(redis.ConnectionError):
        line.call(["PING"])
    assert line.call(["PING"]) == b"PONG"


def test_a_line_bears_being_cut_more_often_than_a_pool_has_connections(valkey_url: str) -> None:
    line = Line(valkey_url, 1.0)
    for _ in range(2 * line._pool.max_connections):
        line.call(["PING"])
        line.hang_up()
    assert line.call(["PING"]) == b"PONG"


def test_an_answer_that_does_not_come_is_told(valkey_url: str) -> None:
    line = Line(valkey_url, 0.05)
    with pytest.raises(NotHeard, match="timed out") as caught:
        line.call(["BLPOP", "nothing", 5])
    assert isinstance(caught.value.__cause__, TimeoutError | redis.TimeoutError)
    assert line.call(["PING"]) == b"PONG"


def test_a_child_speaks_on_a_line_of_its_own(valkey_url: str) -> None:
    line = Line(valkey_url, 1.0)
    mine = line.call(["CLIENT", "ID"])
    pid = os.fork()
    if pid == 0:
        theirs = line.call(["CLIENT", "ID"])
        os._exit(0 if theirs != mine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert line.call(["CLIENT", "ID"]) == mine
