"""Flower beside a real worker: it sees the worker and its tasks, ends one, and asks for queue lengths."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from errands import Errands, Keyring, State
from errands.broker import queues
from errands.doors.local.ports import LOOPBACK, free_port
from errands.doors.local.valkey import EmbeddedValkey
from processes import ROOT, SAMPLE, Worker, until

POOLS = {"prefork": ("-P", "prefork", "-c", "2"), "asyncio": ("-P", "custom", "-c", "10")}


@dataclass
class Watched:
    """A worker, the same app in this process, and a client of the Flower that watches."""

    app: Errands
    worker: Worker
    flower: httpx.Client
    queue: str
    effects: Path

    def seen(self, run_id: str, state: str) -> dict[str, Any] | None:
        """What Flower knows of a run by its events, once it is in that state."""
        answer = self.flower.get(f"/api/task/info/{run_id}")
        found = answer.json() if answer.status_code == 200 else {}
        return found if found.get("state") == state else None

    def reads(self) -> set[str]:
        """The queues that the worker reads, asked by remote control."""
        found = self.app.control.inspect([self.worker.name], timeout=5).active_queues() or {}
        return {queue["name"] for queue in found.get(self.worker.name, [])}

    def wait_for_events(self) -> None:
        """Flower switches a worker's events on when it has found it: runs before that are not seen."""

        def seen() -> bool:
            run = self.app.tasks["add"].delay(1, 1)
            run.get(timeout=30)
            return bool(self.seen(run.id, "SUCCESS"))

        until(seen, 60, "Flower sees a run")


@pytest.fixture(scope="module", params=POOLS)
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp(f"flower-{request.param}")
    queue = f"flower-{uuid.uuid4().hex[:8]}"
    with EmbeddedValkey(folder / "valkey") as valkey, pytest.MonkeyPatch.context() as patch:
        environment = {
            "ERRANDS_HOME": str(folder),
            "ERRANDS_BROKER_URL": valkey.url,
            "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url,
            "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "CELERY_CUSTOM_WORKER_POOL": "errands.worker.pool:TaskPool",
            "SAMPLE_QUEUE": queue,
            "SAMPLE_EFFECTS": str(folder / "effects"),
            "PYTHONPATH": f"{ROOT / 'src'}:{SAMPLE}",
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        app = _sample()
        worker = Worker(environment, folder / "worker.log", *POOLS[request.param])
        try:
            worker.wait_until_ready()
            with _flower(folder / "flower.log") as client:
                found = Watched(app, worker, client, queue, folder / "effects")
                found.wait_for_events()
                yield found
        finally:
            worker.stop()
            app.close()


class _flower:
    """`celery -A sample_app:app flower`, with a password, until the block ends."""

    def __init__(self, log: Path) -> None:
        port = free_port()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "sample_app:app", "flower", f"--address={LOOPBACK}",
                 f"--port={port}", "--basic-auth=ops:word", "--inspect-timeout=2000"],
                stdout=output, stderr=output,
            )  # fmt: skip
        self.log = log
        self.client = httpx.Client(base_url=f"http://{LOOPBACK}:{port}", auth=("ops", "word"), timeout=30)

    def __enter__(self) -> httpx.Client:
        until(self._answers, 60, f"Flower answers; its log: {self.log}")
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(20)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"Flower ended:\n{self.log.read_text()[-4000:]}")
        try:
            return self.client.get("/healthcheck").status_code == 200
        except httpx.TransportError:
            return False


def _sample() -> Errands:
    import runpy

    app: Errands = runpy.run_path(str(SAMPLE / "sample_app.py"))["app"]
    app.finalize()
    return app


def test_flower_lists_the_worker_with_its_queues_and_tasks(watched: Watched) -> None:
    def listed() -> dict[str, Any] | None:
        workers = watched.flower.get("/api/workers", params={"refresh": "true"}).json()
        found: dict[str, Any] = workers.get(watched.worker.name) or {}
        # Flower asks for each on its own, and leaves out what did not come in time.
        return found if {"active_queues", "registered", "stats"} <= set(found) else None

    worker = until(listed, 60, "Flower lists the worker")

    assert {queue["name"] for queue in worker["active_queues"]} == {watched.queue, f"{watched.queue}-default"}
    assert any(name.split()[0] == "add" for name in worker["registered"])
    assert worker["stats"]["pool"]["implementation"]


def test_flower_lists_a_run_and_its_end(watched: Watched) -> None:
    run = watched.app.tasks["add"].delay(2, 3)

    seen = until(lambda: watched.seen(run.id, "SUCCESS"), what="Flower sees the run succeed")

    assert (seen["name"], seen["worker"], seen["result"]) == ("add", watched.worker.name, "5")
    assert run.id in watched.flower.get("/api/tasks", params={"taskname": "add"}).json()


def test_flower_ends_a_run_that_lasts(watched: Watched) -> None:
    run = watched.app.tasks["lasting"].delay("long")
    until(lambda: watched.seen(run.id, "STARTED"), what="Flower sees the run start")
    until(lambda: watched.effects.exists() and "begun long" in watched.effects.read_text(), what="it begins")

    answer = watched.flower.post(f"/api/task/revoke/{run.id}", params={"terminate": "true"})

    assert answer.status_code == 200
    until(lambda: watched.seen(run.id, "REVOKED"), what="Flower sees the run revoked")
    live = until(lambda: (live := watched.app.live.get(run.id)) and live.final and live, what="the run ends")
    assert live.state is State.REVOKED
    assert run.state == "REVOKED"


def test_flower_says_that_it_cannot_count_and_we_count(watched: Watched) -> None:
    """Flower measures stock Celery's lists. Of our broker it tells nothing, rather than a wrong number."""
    unread = f"{watched.queue}-default"
    watched.app.control.cancel_consumer(unread, destination=[watched.worker.name])
    until(lambda: unread not in watched.reads(), what=f"nobody reads {unread}")
    for _ in range(3):
        watched.app.send_task("add", (1, 1), queue=unread)

    answer = watched.flower.get("/api/queues/length")

    assert answer.status_code == 404
    assert "broker is not supported" in answer.text
    with redis.Redis.from_url(str(watched.app.settings.valkey_url)) as client:
        # The read that was under way when the worker left the queue gives back what it gets.
        until(lambda: queues.depths(client, watched.app.keys, [unread])[unread].depth == 3, what="3 are told")
