"""Time limits of coroutines that never give the loop back: they hold for those as well."""

from __future__ import annotations

import gc
import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import TimeLimitExceeded

from errands import Errands, Keyring, State
from errands.doors.local.valkey import EmbeddedValkey
from errands.worker.pool.task_pool import MOST_THREADS
from processes import SAMPLE, Worker, until


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("held-up")
    with EmbeddedValkey(folder / "valkey") as valkey:
        yield {
            "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "SAMPLE_EFFECTS": str(folder / "effects"), "SAMPLE_POOL": "asyncio",
        }  # fmt: skip


@pytest.fixture(scope="module")
def app(environment: dict[str, str]) -> Iterator[Errands]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "pool_app.py"))["app"]
        app.finalize()
    yield app
    gc.collect()
    app.close()


def start(environment: dict[str, str], name: str, slots: int = 20) -> Worker:
    log = Path(environment["ERRANDS_HOME"]) / f"{name}.log"
    worker = Worker(environment, log, "-c", str(slots), app="pool_app:app")
    worker.wait_until_ready()
    return worker


@pytest.fixture
def worker(environment: dict[str, str]) -> Iterator[Worker]:
    made = start(environment, "worker")
    yield made
    made.stop()


def test_a_soft_limit_is_raised_in_code_that_does_not_yield(app: Errands, worker: Worker) -> None:
    result = app.tasks["spins_in_parts"].delay()
    assert result.get(timeout=30) == "a part"
    assert app.tasks["add"].delay(1, 2).get(timeout=20) == 3
    run = app.live.get(result.id)
    assert run is not None
    assert run.state is State.SUCCEEDED


def test_a_hard_limit_ends_code_that_does_not_yield_and_the_worker_goes_on(
    app: Errands, worker: Worker
) -> None:
    result = app.tasks["spins"].delay()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=30)
    assert app.tasks["add"].delay(1, 2).get(timeout=20) == 3
    run = app.live.get(result.id)
    assert run is not None
    assert (run.state, run.facts["error"]["type"]) == (State.FAILED, "TimeLimitExceeded")


def test_what_nothing_can_interrupt_costs_its_worker_and_its_neighbours_run_elsewhere(
    app: Errands, environment: dict[str, str], tmp_path: Path
) -> None:
    effects = Path(environment["SAMPLE_EFFECTS"])
    first = start(environment, "first")
    neighbour = app.tasks["waits_for"].delay(str(tmp_path / "go"))
    until(lambda: f"waits {neighbour.id}" in effects.read_text(), what="the neighbour is at work")
    result = app.tasks["stuck"].delay()
    until(lambda: first.process.poll() is not None, what="the worker has ended", seconds=30)
    second = start(environment, "second")
    try:
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=20)
        run = app.live.get(result.id)
        assert run is not None
        assert (run.state, run.facts["error"]["type"]) == (State.FAILED, "TimeLimitExceeded")
        until(
            lambda: effects.read_text().count(f"waits {neighbour.id}") == 2, what="it is rescued", seconds=60
        )
        (tmp_path / "go").touch()
        assert neighbour.get(timeout=20) == 2
    finally:
        second.stop()
    assert "stuck" in first.log.read_text()
    assert "cannot be interrupted" in first.log.read_text()


def has_failed(app: Errands, run_id: str) -> bool:
    run = app.live.get(run_id)
    return run is not None and run.state is State.FAILED


def test_plain_code_that_nothing_can_interrupt_costs_neither_slot_nor_thread(
    app: Errands, environment: dict[str, str], tmp_path: Path
) -> None:
    """The slot is free, others go on, and the worker still stops when it is told to."""
    worker = start(environment, "plain", slots=2)
    try:
        stuck = app.tasks["stuck_plainly"].delay().id
        until(lambda: has_failed(app, stuck), what="its time limit is over")
        until(lambda: "cannot be interrupted" in worker.log.read_text(), what="it is told")
        meet = [app.tasks["meet_plainly"].delay(str(tmp_path), n, 2) for n in range(2)]  # both slots
        assert [each.get(timeout=20) for each in meet] == [0, 1]
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: worker.process.poll() is not None, what="the worker ends", seconds=20)
        assert worker.process.returncode == 0
    finally:
        worker.kill()


def test_a_worker_whose_threads_never_come_back_ends_in_order(
    app: Errands, environment: dict[str, str], tmp_path: Path
) -> None:
    effects = Path(environment["SAMPLE_EFFECTS"])
    worker = start(environment, "jammed", slots=MOST_THREADS)
    try:
        stuck = app.tasks["stuck_plainly"].delay_many([()] * MOST_THREADS)
        until(lambda: worker.process.poll() is not None, what="the worker has ended", seconds=30)
        assert worker.process.returncode == os.EX_SOFTWARE
        assert all(has_failed(app, run_id) for run_id in stuck)
    finally:
        worker.kill()
    neighbour = app.tasks["waits_for"].delay(str(tmp_path / "go"))
    second = start(environment, "after")
    try:
        until(lambda: f"waits {neighbour.id}" in effects.read_text(), what="others go on")
        (tmp_path / "go").touch()
        neighbour.get(timeout=20)
    finally:
        second.stop()
