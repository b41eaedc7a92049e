"""One worker at a time of `sample/work_app.py`, in either pool, and the same app to send with."""

from __future__ import annotations

import gc
import runpy
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Keyring, State
from errands.broker.runs import LiveRun
from processes import SAMPLE, Worker, until

POOLS = ["asyncio", "prefork"]


class Work:
    def __init__(self, environment: dict[str, str], folder: Path, app: Errands, pool: str) -> None:
        self.environment = environment
        self.folder = folder
        self.app = app
        self.pool = pool
        self.effects = folder / "effects"
        self.go = folder / "go"
        self.workers: list[Worker] = []

    def start(self, *, concurrency: int = 2, timeout: float = 5) -> Worker:
        command = (
            "-m", "errands", "worker", "--app", "work_app:app", "--pool", self.pool,
            "--concurrency", str(concurrency),
        )  # fmt: skip
        environment = {**self.environment, "ERRANDS_SHUTDOWN_TIMEOUT": str(timeout)}
        worker = Worker(environment, self.folder / f"worker-{len(self.workers)}.log", command=command)
        self.workers.append(worker)
        return worker.wait_until_ready()

    def send(self, name: str, *args: object, **options: Any) -> str:
        return str(self.app.tasks[name].apply_async(args, **options).id)

    def words(self, first: str) -> list[str]:
        """The second words of the effects that begin with `first`, in their order."""
        lines = self.effects.read_text().splitlines() if self.effects.exists() else []
        return [line.split()[1] for line in lines if line.split()[0] == first]

    def wait_for(self, first: str, count: int = 1) -> None:
        until(lambda: len(self.words(first)) >= count, what=f"{count} × {first}")

    def run(self, run_id: str) -> LiveRun:
        found = self.app.live.get(run_id)
        assert found is not None
        return found

    def ended(self, run_id: str, seconds: float = 60) -> LiveRun:
        until(lambda: self.run(run_id).final, seconds, f"run {run_id} ends")
        return self.run(run_id)

    def comes_to(self, run_id: str, state: State) -> None:
        until(lambda: self.run(run_id).state is state, what=f"run {run_id} is {state}")

    def terminate(self, worker: Worker) -> None:
        """As a deploy does."""
        worker.process.send_signal(signal.SIGTERM)
        until(lambda: worker.process.poll() is not None, what="the worker ends")


@contextmanager
def working(pool: str, valkey_url: str, folder: Path) -> Iterator[Work]:
    environment = {
        "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "SAMPLE_EFFECTS": str(folder / "effects"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "work_app.py"))["app"]
        app.finalize()
        app.database.upgrade()
    work = Work(environment, folder, app, pool)
    try:
        yield work
    finally:
        for worker in work.workers:
            if worker.process.poll() is None:
                worker.kill()
        gc.collect()  # results unsubscribe when they go, and the server must still be there
        app.database.dispose()
        app.close()
