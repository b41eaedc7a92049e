"""A worker whose broker goes and comes back works again by itself, in each pool."""

from __future__ import annotations

import gc
import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.proxy import Proxy

from errands import Errands, Keyring
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        yield valkey


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
def test_a_broker_that_comes_back_twice(
    broker: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    environment = {
        "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": broker.url, "ERRANDS_RESULT_URL": broker.url,
        "ERRANDS_VALKEY_URL": broker.url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "SAMPLE_EFFECTS": str(tmp_path / "effects"),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app: Errands = runpy.run_path(str(SAMPLE / "pool_app.py"))["app"]
    app.finalize()
    command = ("-m", "errands", "worker", "--app", "pool_app:app", "--pool", pool, "--concurrency", "2")
    worker = Worker(environment, tmp_path / "worker.log", command=command).wait_until_ready()
    effects, go = tmp_path / "effects", tmp_path / "go"

    def told(word: str) -> list[str]:
        lines = effects.read_text().splitlines() if effects.exists() else []
        return [line for line in lines if line.startswith(word)]

    try:
        long = app.tasks["until"].delay(str(go), "long")
        until(lambda: told("begun long"), what="a run is at work")
        for times in (1, 2):
            broker.kill()
            until(lambda n=times: worker.log.read_text().count("does not answer") >= n, what="it is missed")
            broker.start()
            assert app.tasks["plain_add"].delay(times, 1).get(timeout=30) == times + 1
        go.touch()
        assert long.get(timeout=30) == "long"
        assert len(told("begun long")) == len(told("done long")) == 1, "it went on meanwhile"
        assert worker.process.poll() is None
    finally:
        worker.kill()
        gc.collect()
        app.close()


@pytest.fixture
def way(broker: EmbeddedValkey) -> Iterator[Proxy]:
    with Proxy(broker.port) as proxy:
        yield proxy


def still(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Errands, dict[str, str]]:
    """`still_app`, here and as environment for workers."""
    environment = {
        "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": url, "ERRANDS_RESULT_URL": url,
        "ERRANDS_VALKEY_URL": url, "SAMPLE_EFFECTS": str(folder / "effects"),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app: Errands = runpy.run_path(str(SAMPLE / "still_app.py"))["app"]
    app.finalize()
    return app, environment


COMMAND = ("-m", "errands", "worker", "--app", "still_app:app", "--pool", "asyncio", "--concurrency", "2")


def test_connections_whose_other_end_is_gone_without_a_word(
    broker: EmbeddedValkey, way: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall that forgets connections: nothing tells that nobody answers. Consuming again within 30 s."""
    app, environment = still(tmp_path, broker.url, monkeypatch)
    url = broker.url.replace(f":{broker.port}/", f":{way.port}/")
    behind = {name: url if value == broker.url else value for name, value in environment.items()}
    worker = Worker(behind, tmp_path / "worker.log", command=COMMAND).wait_until_ready()
    effects = tmp_path / "effects"
    try:
        for word in ("first", "second"):
            way.swallow()
            app.tasks["note"].delay(word)
            until(lambda w=word: effects.exists() and w in effects.read_text(), 60, f"{word} is noted")
        assert worker.process.poll() is None
    finally:
        worker.kill()
        gc.collect()
        app.close()


def test_a_worker_that_lives_and_consumes_no_more_ends(
    broker: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """celery#8030: alive, silent, for days. Under a supervisor another one takes its place."""
    app, environment = still(tmp_path, broker.url, monkeypatch)
    worker = Worker(environment, tmp_path / "worker.log", command=(*COMMAND, "--processes", "2"))
    effects = tmp_path / "effects"
    try:
        until(lambda: worker.log.read_text().count("ready.") >= 2, 60, "both are ready")
        app.tasks["hold"].delay()
        until(lambda: (tmp_path / "held").exists(), what="one of them is stuck")
        until(lambda: "it starts again" in worker.log.read_text(), 90, "it has ended, and another one starts")
        assert "has not consumed for a while though its broker answers" in worker.log.read_text()
        assert f"ended with status {os.EX_SOFTWARE}" in worker.log.read_text()
        until(lambda: worker.log.read_text().count("ready.") >= 3, 60, "it is ready")
        app.tasks["note"].delay("on")
        until(lambda: effects.exists() and "on" in effects.read_text(), what="work goes on")
    finally:
        worker.stop()
        gc.collect()
        app.close()
