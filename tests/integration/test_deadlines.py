"""Deadlines with real workers, in both pools."""

from __future__ import annotations

import gc
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from errands import Errands, Keyring, State
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until


@pytest.fixture(scope="module", params=["asyncio", "prefork"])
def rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Errands, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("deadlines")
    with EmbeddedValkey(folder / "valkey") as valkey, pytest.MonkeyPatch.context() as patch:
        environment = {
            "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "SAMPLE_POOL": request.param,
        }  # fmt: skip
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "pool_app.py"))["app"]
        app.finalize()
        yield app, environment
        gc.collect()
        app.close()


def test_it_ends_what_runs_and_what_comes_too_late_does_not_start(
    rig: tuple[Errands, dict[str, str]], tmp_path: Path
) -> None:
    app, environment = rig
    late = app.tasks["add"].apply_async((1, 2), deadline=0.2)
    worker = Worker(environment, tmp_path / "worker.log", "-c", "4", app="pool_app:app")
    try:
        worker.wait_until_ready()
        until(lambda: (run := app.live.get(late.id)) and run.state is State.EXPIRED, what="it has expired")
        assert app.tasks["has_a_second"].delay().get(timeout=30) == "a part"
        assert app.tasks["has_a_second_in_a_thread"].delay().get(timeout=30) == "a part"
        assert app.tasks["add"].apply_async((1, 2), deadline=600).get(timeout=30) == 3
    finally:
        worker.stop()
