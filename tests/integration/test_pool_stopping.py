"""How a worker stops, told as rows of one story, in each pool: what it does with each run, and when it
ends.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Keyring, State
from processes import SAMPLE, Worker, until

POOLS = ["asyncio", "prefork"]
# Longer than any of these tests: what ends earlier did not wait for it.
NEVER = "300"


class Story:
    """One worker at a time, and the same app to send with."""

    def __init__(self, environment: dict[str, str], folder: Path, app: Errands, pool: str) -> None:
        self.environment = environment
        self.folder = folder
        self.app = app
        self.pool = pool
        self.effects = folder / "effects"
        self.go = folder / "go"
        self.workers: list[Worker] = []

    def start(self, *options: str, timeout: str, concurrency: int = 2) -> Worker:
        command = (
            "-m", "errands", "worker", "--app", "pool_app:app", "--pool", self.pool,
            "--concurrency", str(concurrency), *options,
        )  # fmt: skip
        log = self.folder / f"worker-{len(self.workers)}.log"
        environment = {**self.environment, "ERRANDS_SHUTDOWN_TIMEOUT": timeout}
        worker = Worker(environment, log, command=command)
        self.workers.append(worker)
        return worker.wait_until_ready()

    def send(self, name: str, *args: object) -> Any:
        return self.app.tasks[name].delay(*args)

    def words(self, first: str) -> list[str]:
        lines = self.effects.read_text().splitlines() if self.effects.exists() else []
        return sorted(line.split()[1] for line in lines if line.startswith(first))

    def begun(self, *words: str) -> None:
        until(lambda: self.words("begun") == sorted(words), what=f"{words} have begun")

    def ended(self, worker: Worker) -> int:
        until(lambda: worker.process.poll() is not None, what="the worker ends")
        return int(worker.process.returncode)

    def waits_in_queue(self, result: Any) -> Callable[[], bool]:
        def gone_back() -> bool:
            run = self.app.live.get(result.id)
            return run is not None and run.state is State.RETRYING

        return gone_back


@pytest.fixture(params=POOLS)
def story(
    request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Story]:
    environment = {
        "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "SAMPLE_EFFECTS": str(tmp_path / "effects"),
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    app: Errands = runpy.run_path(str(SAMPLE / "pool_app.py"))["app"]
    app.finalize()
    told = Story(environment, tmp_path, app, request.param)
    yield told
    for worker in told.workers:
        worker.kill()
    gc.collect()
    app.close()


def test_an_idle_worker_ends_at_once_and_in_order(story: Story) -> None:
    worker = story.start(timeout=NEVER)
    worker.process.send_signal(signal.SIGTERM)
    assert story.ended(worker) == 0


@pytest.mark.parametrize("name", ["until", "until_plainly"])
def test_short_runs_end_and_what_waits_goes_to_others_meanwhile(story: Story, name: str) -> None:
    first = story.start(timeout=NEVER)
    short = [story.send(name, str(story.go), f"short{n}") for n in range(2)]
    story.begun("short0", "short1")
    waits = [story.send("add", n, n) for n in range(3)]
    until(lambda: has_fetched(first, story, 5), what="the first worker has fetched them all")
    first.process.send_signal(signal.SIGTERM)
    second = story.start(timeout=NEVER)
    assert [result.get(timeout=30) for result in waits] == [0, 2, 4], "the first worker is still at work"
    assert first.process.poll() is None
    story.go.touch()
    assert [result.get(timeout=30) for result in short] == ["short0", "short1"]
    assert story.ended(first) == 0
    assert story.words("done") == ["short0", "short1"], "nothing was done twice"
    assert second.process.poll() is None


@pytest.mark.parametrize("name", ["until", "until_plainly"])
def test_long_runs_go_back_uncounted(story: Story, name: str) -> None:
    first = story.start(timeout="0.5")
    long = story.send(name, str(story.go), "long")
    story.begun("long")
    first.process.send_signal(signal.SIGTERM)
    assert story.ended(first) == 0
    story.go.touch()
    story.start(timeout=NEVER)
    assert long.get(timeout=30) == "long"
    live = until(lambda: (run := story.app.live.get(long.id)) and run.final and run)
    assert (live.state, live.attempt) == (State.SUCCEEDED, 1)
    assert story.words("begun") == ["long", "long"]
    assert story.words("done") == ["long"]


def test_a_second_term_hurries(story: Story) -> None:
    first = story.start(timeout=NEVER)
    long = story.send("until", str(story.go), "long")
    story.begun("long")
    first.process.send_signal(signal.SIGTERM)
    until(lambda: "have 300 s to end" in first.log.read_text(), what="the worker stops")
    first.process.send_signal(signal.SIGTERM)
    assert story.ended(first) == 0
    story.go.touch()
    story.start(timeout=NEVER)
    assert long.get(timeout=30) == "long"


def test_what_was_acknowledged_at_its_start_is_told_lost(story: Story) -> None:
    worker = story.start(timeout="0.1")
    early = story.send("early", str(story.go), "early")
    story.begun("early")
    worker.process.send_signal(signal.SIGTERM)
    assert story.ended(worker) == 0
    live = until(lambda: (run := story.app.live.get(early.id)) and run.final and run)
    assert live.state is State.FAILED
    assert "not repeated" in live.facts["error"]["message"]
    assert early.state == "FAILURE"


def test_resources_are_closed_on_the_loop_that_used_them(story: Story) -> None:
    worker = story.start(timeout=NEVER)
    loop = story.send("keeps").get(timeout=30)[1]
    worker.process.send_signal(signal.SIGTERM)
    assert story.ended(worker) == 0
    assert story.words("keeper-closed") == [str(loop)]


def test_an_ended_run_can_clean_up(story: Story) -> None:
    if story.pool == "prefork":
        pytest.skip("a process is killed: nothing in it can clean up")
    worker = story.start(timeout="0.1")
    story.send("long", "cleans")
    story.begun("cleans")
    worker.process.send_signal(signal.SIGTERM)
    assert story.ended(worker) == 0
    assert story.words("cleaned") == ["cleans"]


def test_several_worker_processes_under_one_parent(story: Story) -> None:
    if story.pool == "prefork":
        pytest.skip("the parent knows nothing of pools")
    parent = story.start("--processes", "2", timeout=NEVER)
    names = until(lambda: both(story), what="two workers tell that they are alive")
    pids = {facts["pid"] for facts in names.values()}
    assert parent.process.pid not in pids
    os.kill(min(pids), signal.SIGKILL)
    until(lambda: len(both(story)) == 2 and pids != {f["pid"] for f in both(story).values()}, 60, "a new one")
    assert story.send("add", 1, 2).get(timeout=30) == 3
    parent.process.send_signal(signal.SIGTERM)
    story.ended(parent)
    for facts in names.values():
        until(lambda pid=facts["pid"]: not lives(pid), what="no worker is left")


def both(story: Story) -> dict[str, Any]:
    from errands.broker import workers

    alive = workers.alive(story.app.valkey, story.app.keys)
    return alive if len(alive) == 2 else {}


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def has_fetched(worker: Worker, story: Story, count: int) -> bool:
    inspect = story.app.control.inspect(timeout=1)
    reserved = [r for each in (inspect.reserved() or {}).values() for r in each]
    active = [r for each in (inspect.active() or {}).values() for r in each]
    return len({r["id"] for r in (*reserved, *active)}) == count
