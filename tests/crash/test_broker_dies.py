"""The broker dies while a run is at work, and comes back with its append-only file."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from errands import Errands, Keyring, State
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        yield valkey


@pytest.fixture
def environment(broker: EmbeddedValkey, tmp_path: Path) -> dict[str, str]:
    return {
        "ERRANDS_HOME": str(tmp_path),
        "ERRANDS_BROKER_URL": broker.url,
        "ERRANDS_RESULT_URL": broker.url,
        "ERRANDS_VALKEY_URL": broker.url,
        "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "SAMPLE_EFFECTS": str(tmp_path / "effects"),
    }


def test_an_attempt_that_fails_meanwhile_is_tried_again(
    broker: EmbeddedValkey, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app: Errands = runpy.run_path(str(SAMPLE / "sample_app.py"))["app"]
    effects, go = tmp_path / "effects", tmp_path / "go"
    worker = Worker(environment, tmp_path / "worker.log", "-c", "2").wait_until_ready()
    try:
        run_id = app.tasks["stumble"].delay(str(go)).id
        until(effects.exists, what="the first attempt has begun")
        broker.kill()
        go.touch()
        until(lambda: "onnection" in worker.log.read_text(), what="the worker misses its broker")
        broker.start()

        def ended() -> bool:
            nonlocal worker
            if worker.process.poll() is not None:  # stock kombu may end it; a supervisor starts the next one
                worker = Worker(environment, tmp_path / "next.log", "-c", "2", name="w2")
            run = app.live.get(run_id)
            return run is not None and run.final

        until(ended, 90, "the run ends")
        run = app.live.get(run_id)
        assert run is not None
        assert (run.state, run.attempt) == (State.SUCCEEDED, 2)
        assert [line.split()[1] for line in effects.read_text().splitlines()] == ["1", "2"]
    finally:
        worker.stop()
        app.close()
