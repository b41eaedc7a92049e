"""A worker whose broker goes and comes back works again by itself, in each pool."""

from __future__ import annotations

import gc
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

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
