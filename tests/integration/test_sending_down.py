"""A broker that is down or frozen costs the caller a moment, then an error that says what it means."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kombu.exceptions
import pytest

from errands import Errands, Settings
from errands.core.errors import BrokerUnavailable
from errands.doors.local.ports import free_port
from errands.doors.local.valkey import EmbeddedValkey
from processes import until
from servers import silent_server

pytestmark = pytest.mark.usefixtures("no_worker")

# The promise is 250 ms; a machine that is busy with other tests may be late, not ten times as late.
_SECONDS = 2.5


def app_on(url: str, folder: Path, prefix: str) -> Errands:
    app = Errands(
        "down", settings=Settings(home=folder, broker_url=url, key_prefix=prefix), set_as_current=False
    )

    @app.task(name="add")
    def add(x: int) -> None: ...

    return app


def way_of(app: Errands, named: str) -> Callable[[], object]:
    add = app.tasks["add"]
    return {
        "delay": lambda: add.delay(1),
        "with an id": lambda: add.apply_async((1,), task_id="mine"),
        "many": lambda: add.delay_many([(1,), (2,)]),
        "asyncio": lambda: asyncio.run(add.adelay(1)),
        "many of asyncio": lambda: asyncio.run(add.adelay_many([(1,), (2,)])),
        "a name": lambda: app.send_task("add", (1,)),
    }[named]


WAYS = ["delay", "with an id", "many", "asyncio", "many of asyncio", "a name"]


@contextmanager
def refused(words: str) -> Iterator[None]:
    begun = time.monotonic()  # the promise is of a quarter of a second
    with pytest.raises(BrokerUnavailable, match=words) as told:
        yield
    took = time.monotonic() - begun
    print(f"{took * 1000:.0f} ms: {told.value}")
    assert took < _SECONDS
    assert isinstance(told.value, kombu.exceptions.OperationalError)
    assert "password" not in str(told.value)


@contextmanager
def frozen(server: EmbeddedValkey) -> Iterator[None]:
    """The server takes connections and bytes, and does nothing."""
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


@pytest.mark.parametrize("way", WAYS)
def test_nobody_listens(way: str, tmp_path: Path, key_prefix: str) -> None:
    port = free_port()
    app = app_on(f"redis://:password@127.0.0.1:{port}/0", tmp_path, key_prefix)
    app.finalize()
    with refused(rf"add.*not sent: the broker at 127.0.0.1:{port}/0 does not answer.*accepted"):
        way_of(app, way)()


@pytest.mark.parametrize("way", WAYS)
def test_a_frozen_broker(way: str, server: EmbeddedValkey, tmp_path: Path, key_prefix: str) -> None:
    app = app_on(server.url, tmp_path, key_prefix)
    app.tasks["add"].delay(0)
    with frozen(server):
        # What was written to a connection is read when the server goes on; a new connection gets no further.
        with refused("does not answer|not known whether"):
            way_of(app, way)()


@pytest.mark.parametrize("way", WAYS)
def test_a_broker_that_does_not_speak_is_asked_once(way: str, tmp_path: Path, key_prefix: str) -> None:
    """Each try would cost a fifth of a second, of the quarter that a caller waits."""
    with silent_server() as (port, taken):
        app = app_on(f"redis://:password@127.0.0.1:{port}/0", tmp_path, key_prefix)
        app.finalize()
        with refused("does not answer"):
            way_of(app, way)()
        assert len(taken) == 1
        with refused("does not answer"):
            way_of(app, way)()
        assert len(taken) == 2


def test_what_a_frozen_broker_took_may_be_sent_again(
    server: EmbeddedValkey, tmp_path: Path, key_prefix: str
) -> None:
    app = app_on(server.url, tmp_path, key_prefix)
    add = app.tasks["add"]
    add.delay(0)
    with frozen(server):
        with refused("not known whether it will run.*Sending it again with task_id='mine' is safe"):
            add.apply_async((1,), task_id="mine")
    assert add.apply_async((1,), task_id="mine").id == "mine"
    until(lambda: app.live.get("mine"), what="the run is known")
    assert app.valkey.xlen(f"{key_prefix}q:celery:normal") == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_broker_that_was_killed_and_came_back(
    way: str, server: EmbeddedValkey, tmp_path: Path, key_prefix: str
) -> None:
    app = app_on(server.url, tmp_path, key_prefix)
    app.tasks["add"].delay(0)
    server.kill()
    with refused("was not sent|were not sent|not known whether"):
        way_of(app, way)()
    server.start()
    way_of(app, way)()  # the first call after it: its old connection is dead, and nobody is told


def test_a_connection_that_was_cut_is_made_again(
    server: EmbeddedValkey, tmp_path: Path, key_prefix: str
) -> None:
    """By a proxy, or by the server's own time-out: it is found out by using it, and is no error."""
    app = app_on(server.url, tmp_path, key_prefix)
    add = app.tasks["add"]

    def cut() -> None:
        app.valkey.client_kill_filter(_type="normal", skipme=True)

    for _ in range(3):
        add.delay(1)
        cut()

    async def send() -> None:
        for _ in range(3):
            await add.adelay(1)
            cut()

    asyncio.run(send())
    assert app.valkey.xlen(f"{key_prefix}q:celery:normal") == 6


def test_a_full_broker_says_so(server: EmbeddedValkey, tmp_path: Path, key_prefix: str) -> None:
    app = app_on(server.url, tmp_path, key_prefix)
    app.tasks["add"].delay(0)
    app.valkey.config_set("maxmemory", "1")
    with refused("add.* was not sent: .* refused .*maxmemory.*; nothing was accepted"):
        app.tasks["add"].delay(1)
    app.valkey.config_set("maxmemory", "0")
    app.tasks["add"].delay(1)
