"""Parts of the asyncio pool and of how a worker is chosen, without a worker."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
import redis

from errands import Errands, Queue
from errands.broker.green import GreenConnection, GreenSocket, green, greened
from errands.core.green import Spawn
from errands.doors.cli.workers import ASYNCIO_CLASS, choose_pool
from errands.doors.local.errors import LocalRunError
from errands.worker.loop import process_loop
from errands.worker.pool.limits import Deadlines


class Timed:
    """As much of a job as deadlines are about."""

    def __init__(self, soft_at: float, hard_at: float) -> None:
        self.soft_at = soft_at
        self.hard_at = hard_at


async def test_deadlines_come_due_in_order_and_once() -> None:
    loop = asyncio.get_running_loop()
    due: list[tuple[str, bool]] = []
    over = asyncio.Event()
    now = loop.time()
    jobs = {"a": Timed(now + 0.02, now + 0.06), "b": Timed(now + 0.04, now + 3600), "gone": Timed(now, now)}
    names = {id(job): name for name, job in jobs.items()}

    def on_due(job: Any, soft: bool) -> None:
        due.append((names[id(job)], soft))
        if not soft:
            over.set()

    deadlines = Deadlines(loop, on_due)
    for job in jobs.values():
        deadlines.watch(job)  # type: ignore[arg-type]
    deadlines.forget(jobs["gone"])  # type: ignore[arg-type]
    await over.wait()
    assert due == [("a", True), ("b", True), ("a", False)]


# -- connections that step aside


def turns_meanwhile(work: Any) -> tuple[Any, int]:
    """What `work` gave in a greenlet, and how often the loop turned meanwhile."""

    async def main() -> tuple[Any, int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        counting = asyncio.create_task(count())
        try:
            return await Spawn(work), turns
        finally:
            counting.cancel()

    return asyncio.run(main())


def test_a_blocking_command_lets_the_loop_go_on(valkey_url: str) -> None:
    pool = redis.ConnectionPool.from_url(valkey_url, connection_class=GreenConnection)
    client = redis.Redis(connection_pool=pool)
    reply, turns = turns_meanwhile(lambda: client.blpop(["nothing"], timeout=0.3))
    assert reply is None
    assert turns > 20
    assert client.ping() is True, "outside of a greenlet it is an ordinary connection"
    client.close()


def test_more_than_a_socket_takes_at_once(valkey_url: str) -> None:
    client = redis.Redis(
        connection_pool=redis.ConnectionPool.from_url(valkey_url, connection_class=GreenConnection)
    )
    large = b"x" * 20_000_000
    reply, _ = turns_meanwhile(lambda: (client.set("large", large), client.get("large")))
    assert reply == (True, large)
    client.close()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = redis.Redis(
            connection_pool=redis.ConnectionPool(
                host="127.0.0.1", port=silent.getsockname()[1], socket_timeout=0.2,
                connection_class=GreenConnection, retry=None,
            )
        )  # fmt: skip

        def ask() -> str:
            with pytest.raises(redis.TimeoutError):
                client.get("x")
            return "given up"

        told, turns = turns_meanwhile(ask)
        assert told == "given up"
        assert turns > 20


def test_who_made_a_socket_non_blocking_is_not_made_to_wait() -> None:
    one, other = socket.socketpair()
    one.setblocking(False)

    def read() -> str:
        with pytest.raises(BlockingIOError):
            GreenSocket(one).recv(1)
        return "at once"

    assert turns_meanwhile(read)[0] == "at once"
    one.close()
    other.close()


def test_each_kind_of_connection_has_a_green_one() -> None:
    for kind in (redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection):
        assert issubclass(green(kind), kind)
        assert green(green(kind)) is green(kind)

    class Own(redis.Connection):
        pass

    assert issubclass(green(Own), Own)
    assert greened({"host": "h"}) == {"host": "h", "connection_class": GreenConnection}


# -- one loop for each process


def test_the_loop_does_not_wait_for_itself() -> None:
    thread = process_loop()

    async def inner() -> None: ...

    async def outer() -> None:
        thread.run(inner())

    with pytest.raises(RuntimeError, match="use await"):
        thread.run(outer())


def test_coroutines_of_threads_run_on_the_one_loop() -> None:
    seen: list[int] = []

    async def where() -> None:
        seen.append(threading.get_ident())

    threads = [threading.Thread(target=lambda: process_loop().run(where())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    assert threading.get_ident() not in seen


# -- which pool


@pytest.mark.parametrize(
    ("queues", "pool", "concurrency", "expected"),
    [
        (["mail"], "", 0, ("asyncio", 100)),
        (["mail"], "", 7, ("asyncio", 7)),
        (["pdf"], "", 3, ("prefork", 3)),
        (["mail", "pdf"], "", 3, ("prefork", 3)),
        (["mail"], "prefork", 3, ("prefork", 3)),
        (["pdf"], "asyncio", 0, ("asyncio", 100)),
    ],
)
def test_the_queues_choose_the_pool(
    queues: list[str], pool: str, concurrency: int, expected: tuple[str, int]
) -> None:
    app = Errands("t", queues=["mail", Queue("pdf", cpu=True)], set_as_current=False)
    chosen = choose_pool(app, queues, pool, concurrency)
    assert (chosen.name, chosen.concurrency) == expected
    assert bool(chosen.hint) == (len(queues) == 2)


def test_a_pool_of_the_applications_own_stays() -> None:
    app = Errands("t", queues=["mail"], set_as_current=False)
    app.conf.worker_pool = "some.where:Pool"
    assert choose_pool(app, ["mail"]).implementation == "some.where:Pool"
    assert choose_pool(app, ["mail"], "asyncio").implementation == ASYNCIO_CLASS


def test_an_unknown_pool_is_refused() -> None:
    app = Errands("t", queues=["mail"], set_as_current=False)
    with pytest.raises(LocalRunError, match="choose one of: asyncio, prefork"):
        choose_pool(app, ["mail"], "turbo")
