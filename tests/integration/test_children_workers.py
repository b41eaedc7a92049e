"""Children with limits inside real workers, in both pools."""

from __future__ import annotations

import gc
import os
import runpy
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from errands import Errands, Keyring
from processes import SAMPLE, Worker, until

POOLS = {
    "prefork": ("-P", "prefork", "-c", "2"),
    "asyncio": ("-P", "custom", "-c", "10"),
}


@dataclass
class Rig:
    app: Errands
    worker: Worker
    notes: Path


@pytest.fixture(params=POOLS)
def rig(request: pytest.FixtureRequest, tmp_path: Path, valkey_url: str, key_prefix: str) -> Iterator[Rig]:
    notes = tmp_path / "notes"
    notes.mkdir()
    environment = {
        "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_KEY_PREFIX": key_prefix, "SAMPLE_QUEUE": f"{key_prefix}children", "SAMPLE_NOTES": str(notes),
    }  # fmt: skip
    if request.param == "asyncio":
        environment["CELERY_CUSTOM_WORKER_POOL"] = "errands.worker.pool:TaskPool"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "children_app.py"))["app"]
        app.finalize()
        worker = Worker(environment, tmp_path / "worker.log", *POOLS[request.param], app="children_app:app")
        try:
            worker.wait_until_ready()
            yield Rig(app, worker, notes)
        finally:
            worker.kill()
            gc.collect()
            app.close()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def noted(rig: Rig) -> tuple[int, int]:
    """The process at work on `child_busy`, and its child."""

    def find() -> tuple[int, int] | None:
        files = [file for file in rig.notes.iterdir() if file.name.isdigit() and file.read_text()]
        return (int(files[0].name), int(files[0].read_text())) if files else None

    found: tuple[int, int] = until(find, what="the task has begun")
    return found


def test_plain_and_async_tasks_have_children(rig: Rig) -> None:
    for name in ("child_pid", "child_pid_async"):
        parent, child = rig.app.tasks[name].delay().get(timeout=30)
        assert parent != child
        assert not gone(parent)


def test_a_memory_bomb_is_an_error_that_a_task_can_catch(rig: Rig) -> None:
    assert rig.app.tasks["child_bomb"].delay().get(timeout=30) == "memory"


def test_a_soft_time_limit_ends_the_call_and_its_child(rig: Rig) -> None:
    with pytest.raises(SoftTimeLimitExceeded):
        rig.app.tasks["child_slow"].delay().get(timeout=30)
    until(lambda: gone(int((rig.notes / "slow").read_text())), 5, "the child is gone")


def test_no_child_outlives_a_worker_that_is_killed(rig: Rig) -> None:
    rig.app.tasks["child_busy"].delay()
    parent, child = noted(rig)
    # That process alone, as a hard time limit or the system would; not its group.
    os.kill(parent, signal.SIGKILL)
    until(lambda: gone(child), 5, "the child is gone")
    assert gone(parent)
