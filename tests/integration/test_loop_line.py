"""What we rely on inside of redis-py and asyncio to speak past them: see `errands.broker.loop_line`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hiredis import pack_command

from errands.broker.errors import NotHeard
from errands.broker.line import Line
from errands.broker.loop_line import LoopLine
from errands.doors.local.valkey import EmbeddedValkey
from tls import EncryptedDoor, make_certificate


def line_to(url: str, silence: float = 5.0) -> LoopLine:
    return LoopLine(url, silence, asyncio.get_running_loop())


def ask(line: LoopLine, *commands: tuple[Any, ...]) -> asyncio.Future[Any]:
    """The replies to `commands`, or why there are none."""
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    line.send(b"".join(map(pack_command, commands)), len(commands), heard.set_result)
    return heard


async def test_replies_come_in_their_order_and_errors_are_those_of_redis_py(valkey_url: str) -> None:
    line = line_to(valkey_url)
    await line.connect()
    asked = [
        ask(line, ("PING",)),
        ask(line, ("MULTI",), ("ECHO", "x" * 200_000), ("EXEC",)),  # in several pieces
        ask(line, ("EVALSHA", "0" * 40, 0)),
        ask(line, ("GET",)),
        ask(line, ("ECHO", "last")),
    ]
    first, second, third, fourth, fifth = await asyncio.gather(*asked)
    assert (first, fifth) == ([b"PONG"], [b"last"])
    assert second == [b"OK", b"QUEUED", [b"x" * 200_000]]
    assert isinstance(third[0], redis.exceptions.NoScriptError)
    assert isinstance(fourth[0], redis.ResponseError)
    line.hang_up()


async def test_who_was_not_answered_when_it_was_cut_is_told_and_it_connects_again(valkey_url: str) -> None:
    line = line_to(valkey_url)
    await line.connect()
    [number] = await ask(line, ("CLIENT", "ID"))
    asked = [ask(line, ("BLPOP", "nothing", 0)), ask(line, ("PING",))]
    redis.Redis.from_url(valkey_url).client_kill_filter(_id=str(number))
    assert [type(told) for told in await asyncio.gather(*asked)] == [NotHeard, NotHeard]
    assert not line.connected
    with pytest.raises(redis.ConnectionError):
        ask(line, ("PING",))
    for _ in range(150):  # more often than a pool of redis-py's makes connections
        await line.connect()
        assert await ask(line, ("PING",)) == [b"PONG"]
        line.hang_up()


async def test_who_connects_before_the_loop_has_told_of_the_cut_is_not_given_another_ones_reply(
    valkey_url: str,
) -> None:
    line = line_to(valkey_url)
    await line.connect()
    asked = ask(line, ("BLPOP", "nothing", 0))
    assert line._transport is not None
    line._transport.close()
    await line.connect()
    assert await ask(line, ("PING",)) == [b"PONG"]
    assert isinstance(await asked, NotHeard)
    line.hang_up()


async def test_silence_is_told_and_does_not_count_while_nothing_is_asked(valkey_url: str) -> None:
    line = line_to(valkey_url, 0.2)
    await line.connect()
    loop = asyncio.get_running_loop()
    quiet = loop.time() + 0.3
    while loop.time() < quiet:
        assert await ask(line, ("PING",)) == [b"PONG"]
    before = loop.time()
    told = await ask(line, ("BLPOP", "nothing", 0))
    assert loop.time() - before >= 0.2
    assert isinstance(told, NotHeard)
    assert isinstance(told.__cause__, TimeoutError)
    await line.connect()
    assert await ask(line, ("PING",)) == [b"PONG"]
    line.hang_up()


async def test_a_frozen_server_is_away(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(redis.ConnectionError):
                await line_to(server.url, 0.2).connect()
        finally:
            os.kill(server.process.pid, signal.SIGCONT)


async def test_over_tls(tmp_path: Path) -> None:
    """A socket of TLS keeps Python's time-out, and asyncio's transport of TLS changes hands too."""
    certificate = make_certificate(tmp_path)
    with EmbeddedValkey(tmp_path / "valkey") as server, EncryptedDoor(certificate, server.port) as door:
        url = f"rediss://:{server.password}@127.0.0.1:{door.port}/0?ssl_ca_certs={quote(str(certificate))}"
        line = line_to(url)
        await line.connect()
        assert await ask(line, ("PING",), ("ECHO", "x" * 200_000)) == [b"PONG", b"x" * 200_000]
        line.hang_up()
        plain = Line(url, 0.2)
        assert await asyncio.to_thread(plain.call, ["PING"]) == b"PONG"

        def wait_in_vain() -> BaseException | None:
            with pytest.raises(NotHeard) as caught:
                plain.call(["BLPOP", "nothing", 5])
            plain.hang_up()
            return caught.value.__cause__

        assert isinstance(await asyncio.to_thread(wait_in_vain), TimeoutError | redis.TimeoutError)
