"""A worker that is told to stop while it works gives its work back."""

from __future__ import annotations

import runpy
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from errands import Errands, Keyring, State
from processes import SAMPLE, Worker, until

ERRANDS_WORKER = ("-m", "errands", "worker", "--app", "sample_app:app", "--concurrency", "2")


@pytest.fixture
def environment(valkey_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "ERRANDS_HOME": str(tmp_path),
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url,
        "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_SHUTDOWN_TIMEOUT": "1",
        "SAMPLE_EFFECTS": str(tmp_path / "effects"),
    }


@pytest.fixture
def app(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Errands]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made: Errands = runpy.run_path(str(SAMPLE / "sample_app.py"))["app"]
    made.finalize()
    yield made
    made.close()


def test_what_runs_and_what_waits_goes_to_the_next_worker(
    app: Errands, environment: dict[str, str], tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    first = Worker(environment, tmp_path / "first.log", command=ERRANDS_WORKER).wait_until_ready()
    runs = [app.tasks["patient"].delay(str(tmp_path / "go"), n) for n in range(6)]
    until(lambda: effects.exists() and len(effects.read_text().splitlines()) >= 2, what="two runs have begun")
    asked = time.monotonic()
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(15)
    assert time.monotonic() - asked < 15
    (tmp_path / "go").touch()
    second = Worker(environment, tmp_path / "second.log", command=ERRANDS_WORKER).wait_until_ready()
    try:
        assert sorted(run.get(timeout=30) for run in runs) == list(range(6))
        for run in runs:
            ended = until(lambda run=run: (live := app.live.get(run.id)) and live.final and live)
            assert ended.state is State.SUCCEEDED
        done = [line.split()[1] for line in effects.read_text().splitlines() if line.startswith("done")]
        assert sorted(done) == [str(n) for n in range(6)]
    finally:
        second.stop()
