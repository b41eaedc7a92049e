"""What Celery promises of a pool, kept by the asyncio pool: a real worker, one test a promise."""

from __future__ import annotations

import gc
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from errands import Errands, Keyring, State
from errands.broker import workers
from errands.broker.runs import LiveRun
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until

CONCURRENCY = 60


@dataclass
class Rig:
    app: Errands
    worker: Worker
    effects: Path

    def task(self, name: str) -> Any:
        return self.app.tasks[name]

    def ended(self, run_id: str) -> LiveRun:
        def final() -> LiveRun | None:
            run = self.app.live.get(run_id)
            return run if run and run.final else None

        found: LiveRun = until(final, what=f"run {run_id} ends")
        return found

    def lines(self, word: str) -> list[list[str]]:
        text = self.effects.read_text() if self.effects.exists() else ""
        return [line.split() for line in text.splitlines() if line.split()[0] == word]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    import runpy

    folder = tmp_path_factory.mktemp("pool")
    with EmbeddedValkey(folder / "valkey") as valkey:
        environment = {
            "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "SAMPLE_EFFECTS": str(folder / "effects"), "SAMPLE_POOL": "asyncio",
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            app: Errands = runpy.run_path(str(SAMPLE / "pool_app.py"))["app"]
            app.finalize()
        log = folder / "worker.log"
        worker = Worker(environment, log, "-c", str(CONCURRENCY), "-E", app="pool_app:app")
        try:
            worker.wait_until_ready()
            yield Rig(app, worker, folder / "effects")
        finally:
            worker.stop()
            gc.collect()  # results unsubscribe when they go, and the server must still be there
            app.close()


# -- what runs side by side


def test_many_at_a_time_on_one_loop(rig: Rig, tmp_path: Path) -> None:
    results = [rig.task("meet").delay(str(tmp_path), n, CONCURRENCY) for n in range(CONCURRENCY)]
    assert [result.get(timeout=30) for result in results] == list(range(CONCURRENCY))


def test_plain_tasks_side_by_side_in_threads(rig: Rig, tmp_path: Path) -> None:
    results = [rig.task("meet_plainly").delay(str(tmp_path), n, 8) for n in range(8)]
    assert [result.get(timeout=30) for result in results] == list(range(8))


def test_plain_tasks_that_block_hold_up_no_asynchronous_one(rig: Rig, tmp_path: Path) -> None:
    blocking = [rig.task("until_plainly").delay(str(tmp_path / "go"), f"b{n}") for n in range(32)]
    until(lambda: len([words for words in rig.lines("begun") if words[1].startswith("b")]) == 32)
    more = rig.task("plain_add").delay(1, 1)
    assert rig.task("add").delay(1, 2).get(timeout=20) == 3
    assert not more.ready(), "there are 32 threads, and all are taken"
    (tmp_path / "go").touch()
    assert [result.get(timeout=20) for result in blocking] == [f"b{n}" for n in range(32)]
    assert more.get(timeout=20) == 2


def test_more_than_fit_wait_their_turn(rig: Rig) -> None:
    results = [rig.task("add").delay(n, 0) for n in range(5 * CONCURRENCY)]
    assert [result.get(timeout=30) for result in results] == list(range(5 * CONCURRENCY))


def test_a_task_sees_itself(rig: Rig) -> None:
    """`self.request` and `current_task`, before and after waiting, in children, twenty at a time."""
    for result in [rig.task("who").delay() for _ in range(20)]:
        assert set(result.get(timeout=20)) == {result.id}


def test_a_plain_task_sees_itself_its_app_and_nobody_elses_context(rig: Rig) -> None:
    for result in [rig.task("where").delay() for _ in range(40)]:
        request, thread, colour, app = result.get(timeout=20)
        assert (request, colour, app) == (result.id, "none", "pool")
        assert thread.startswith("errands-thread")


def test_resources_of_the_process_live_on_its_loop(rig: Rig) -> None:
    told = [result.get(timeout=20) for result in [rig.task("keeps").delay() for _ in range(5)]]
    assert len({tuple(each) for each in told}) == 1
    assert len(rig.lines("keeper-made")) == 1
    assert len(rig.lines("process-began")) == 1


# -- canvas


def test_canvas(rig: Rig) -> None:
    add, total = rig.task("add"), rig.task("total")
    assert chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=20) == 10
    assert group(add.s(n, n) for n in range(10))().get(timeout=20) == [2 * n for n in range(10)]
    assert chord([add.s(n, n) for n in range(20)], total.s())().get(timeout=20) == 380
    assert chord([rig.task("plain_add").s(1, 1), add.s(2, 2)], total.s())().get(timeout=20) == 6


def test_links(rig: Rig) -> None:
    result = rig.task("add").apply_async((1, 2), link=rig.task("add").s(10))
    assert result.get(timeout=20) == 3
    assert [child.get(timeout=20) for child in result.children] == [13]


def test_a_task_that_puts_another_in_its_place(rig: Rig) -> None:
    assert rig.task("replaced").delay(1).get(timeout=20) == 101


def test_a_task_that_sends_another(rig: Rig) -> None:
    child = rig.task("sends").delay(5).get(timeout=20)
    assert rig.app.AsyncResult(child).get(timeout=20) == 6
    run = rig.ended(child)
    assert run.facts["parent_id"] == run.facts["root_id"]


# -- ends


def test_an_error(rig: Rig) -> None:
    result = rig.task("boom").delay()
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=20)
    assert rig.ended(result.id).state is State.FAILED


@pytest.mark.parametrize("name", ["again", "again_by_itself"])
def test_retries(rig: Rig, name: str) -> None:
    assert rig.task(name).delay(2).get(timeout=20) == 2
    with pytest.raises(KeyError, match="again"):
        rig.task(name).delay(9).get(timeout=20)


def test_our_own_retries(rig: Rig) -> None:
    result = rig.task("flaky").delay(2)
    assert result.get(timeout=20) == 3
    assert rig.ended(result.id).attempt == 3


def test_progress_from_the_loop(rig: Rig) -> None:
    result = rig.task("progresses").delay()
    assert result.get(timeout=20) == "done"
    assert rig.ended(result.id).facts["progress"]["note"] == "half"


def test_signals_are_sent_with_the_request_at_hand(rig: Rig) -> None:
    result = rig.task("signalled").delay()
    assert result.get(timeout=20) == "told"
    until(lambda: rig.lines("postrun"), what="the signal after the run")
    assert [words[1] for words in rig.lines("prerun")] == [result.id]
    assert [words[1:3] for words in rig.lines("postrun")] == [[result.id, "SUCCESS"]]


# -- limits


@pytest.mark.parametrize("name", ["soft_caught", "soft_plain"])
def test_a_soft_limit_can_be_caught(rig: Rig, name: str) -> None:
    assert rig.task(name).delay().get(timeout=20) == "a part"


def test_a_soft_limit_that_is_not_caught(rig: Rig) -> None:
    result = rig.task("soft").delay()
    with pytest.raises(SoftTimeLimitExceeded):
        result.get(timeout=20)
    assert rig.ended(result.id).facts["error"]["type"] == "SoftTimeLimitExceeded"


@pytest.mark.parametrize("name", ["hard", "hard_plain"])
def test_a_hard_limit(rig: Rig, name: str) -> None:
    result = rig.task(name).delay()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=20)
    assert rig.ended(result.id).facts["error"]["type"] == "TimeLimitExceeded"
    until(lambda: stats(rig)["running"] == 0, what="its slot is free")


def test_a_body_that_swallows_its_end_loses_its_slot_and_its_result(rig: Rig, tmp_path: Path) -> None:
    result = rig.task("stubborn").delay(str(tmp_path / "go"))
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=20)
    until(lambda: "stubborn" in goes_on(rig), what="the worker says so")
    (tmp_path / "go").touch()
    until(lambda: rig.lines("gone-on"), what="it has gone on")
    assert rig.task("add").delay(1, 1).get(timeout=20) == 2
    assert rig.ended(result.id).facts["error"]["type"] == "TimeLimitExceeded"
    assert result.state == "FAILURE"


def test_time_outs_of_the_tasks_own(rig: Rig) -> None:
    assert rig.task("timed").delay().get(timeout=20) == "in time"


def test_a_cancellation_that_is_none_of_ours_is_a_failure(rig: Rig) -> None:
    with pytest.raises(RuntimeError, match="cancelled from within"):
        rig.task("cancels_itself").delay().get(timeout=20)


def test_a_task_that_wants_to_end_the_process_is_told_lost_and_neighbours_go_on(rig: Rig) -> None:
    result = rig.task("leaves").delay()
    assert result.get(timeout=60) == 2
    assert rig.worker.process.poll() is None


# -- revoking


def test_revoking_what_runs(rig: Rig) -> None:
    word = uuid.uuid4().hex
    result = rig.task("long").delay(word)
    until(lambda: [words for words in rig.lines("begun") if words[1] == word], what="it has begun")
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)
    until(lambda: [words for words in rig.lines("cleaned") if words[1] == word], what="it cleaned up")
    assert rig.ended(result.id).state is State.REVOKED


def test_revoking_a_plain_task_that_runs(rig: Rig, tmp_path: Path) -> None:
    word = uuid.uuid4().hex
    result = rig.task("until_plainly").delay(str(tmp_path / "never"), word)
    until(lambda: [words for words in rig.lines("begun") if words[1] == word], what="it has begun")
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)
    until(lambda: stats(rig)["threads"]["busy"] == 0, what="its thread is free")


def test_revoking_what_waits(rig: Rig) -> None:
    result = rig.task("add").apply_async((1, 1), countdown=1.0)
    result.revoke()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=20)


# -- alone


def test_one_that_may_take_its_worker_down_runs_alone(rig: Rig, tmp_path: Path) -> None:
    neighbour = rig.task("until").delay(str(tmp_path / "go"), "neighbour")
    until(lambda: ["begun", "neighbour"] in [words[:2] for words in rig.lines("begun")])
    first, second = rig.task("alone").delay("first"), rig.task("alone").delay("second")
    until(lambda: len(rig.lines("asks")) == 2, what="two ask to be alone")
    newcomer = rig.task("add").delay(1, 1)
    until(lambda: stats(rig)["waiting"] == 1, what="the newcomer is held")
    assert not rig.lines("alone-begins")
    (tmp_path / "go").touch()
    assert [neighbour.get(timeout=20), first.get(timeout=20), second.get(timeout=20)] == [
        "neighbour", True, True,
    ]  # fmt: skip
    assert newcomer.get(timeout=20) == 2
    text = rig.effects.read_text().splitlines()
    order = [line.split()[0] for line in text if line.startswith(("alone", "done neighbour"))]
    assert order == ["done", "alone-begins", "alone-ends", "alone-begins", "alone-ends"]


# -- what is told


def stats(rig: Rig) -> dict[str, Any]:
    inspect = rig.app.control.inspect(destination=[rig.worker.name], timeout=5)
    told = until(inspect.stats, what="the worker answers")
    pool: dict[str, Any] = told[rig.worker.name]["pool"]
    return pool


def goes_on(rig: Rig) -> str:
    return "\n".join(line for line in rig.worker.log.read_text().splitlines() if "goes on though" in line)


def test_remote_control(rig: Rig, tmp_path: Path) -> None:
    word = uuid.uuid4().hex
    result = rig.task("until").delay(str(tmp_path / "go"), word)
    until(lambda: [words for words in rig.lines("begun") if words[1] == word], what="it has begun")
    inspect = rig.app.control.inspect(destination=[rig.worker.name], timeout=2)
    [active] = inspect.active()[rig.worker.name]
    assert (active["id"], active["name"], active["args"]) == (
        result.id,
        "until",
        [str(tmp_path / "go"), word],
    )
    assert inspect.query_task(result.id)[rig.worker.name][result.id][0] == "active"
    assert stats(rig)["max-concurrency"] == CONCURRENCY
    (tmp_path / "go").touch()
    assert result.get(timeout=20) == word


def test_growing_and_shrinking(rig: Rig, tmp_path: Path) -> None:
    rig.app.control.pool_grow(10, destination=[rig.worker.name])
    until(lambda: stats(rig)["max-concurrency"] == CONCURRENCY + 10)
    results = [rig.task("meet").delay(str(tmp_path), n, CONCURRENCY + 10) for n in range(CONCURRENCY + 10)]
    assert len([result.get(timeout=30) for result in results]) == CONCURRENCY + 10
    rig.app.control.pool_shrink(10, destination=[rig.worker.name])
    until(lambda: stats(rig)["max-concurrency"] == CONCURRENCY)
    assert rig.task("add").delay(2, 2).get(timeout=20) == 4


def test_a_rate_limit(rig: Rig) -> None:
    rated = [rig.task("rated").delay(n) for n in range(3)]
    assert rig.task("add").delay(2, 2).get(timeout=20) == 4
    until(lambda: rated[0].ready(), what="the first one")
    assert not rated[2].ready()
    rig.app.control.rate_limit("rated", "1000/s", destination=[rig.worker.name])
    rig.app.control.revoke([result.id for result in rated[1:]])


def test_watchers_can_switch_events_on(rig: Rig) -> None:
    seen: list[str] = []
    rig.app.control.enable_events(destination=[rig.worker.name])
    with rig.app.connection_for_read() as connection:
        receiver = rig.app.events.Receiver(
            connection, handlers={"*": lambda event: seen.append(f"{event['type']} {event.get('uuid', '')}")}
        )
        watcher = threading.Thread(
            target=receiver.capture, kwargs={"limit": None, "timeout": 30, "wakeup": True}
        )
        watcher.start()
        until(lambda: any(line.startswith("worker-") for line in seen), what="the watcher hears the worker")
        result = rig.task("add").delay(1, 1)
        until(lambda: f"task-succeeded {result.id}" in seen, what="the run's events")
        receiver.should_stop = True
        watcher.join(30)
    told = [line.split()[0] for line in seen if line.endswith(result.id)]
    assert told[-3:] == ["task-received", "task-started", "task-succeeded"]


def test_the_heartbeat_names_the_pool(rig: Rig) -> None:
    told = workers.alive(rig.app.valkey, rig.app.keys)[rig.worker.name]
    assert (told["pool"], told["concurrency"]) == ("asyncio", CONCURRENCY)


def test_the_heartbeat_names_the_runs_at_work(rig: Rig, tmp_path: Path) -> None:
    results = [rig.task(name).delay(str(tmp_path / "go"), name) for name in ("until", "until_plainly")]
    ids = {result.id for result in results}

    def told() -> set[str]:
        return set(workers.alive(rig.app.valkey, rig.app.keys)[rig.worker.name]["runs"])

    until(lambda: ids <= told(), what="both are named")
    (tmp_path / "go").touch()
    until(lambda: not ids & told(), what="neither is named any more")


def test_a_task_that_holds_up_the_loop_is_named_once(rig: Rig) -> None:
    result = rig.task("holds_up").delay(2.5)
    assert result.get(timeout=20) == "over"
    until(lambda: "turns again after" in rig.worker.log.read_text(), what="the loop goes on")
    warnings = [line for line in rig.worker.log.read_text().splitlines() if "] holds it in holds_up" in line]
    assert len(warnings) == 1
    assert f"holds_up[{result.id}] holds it" in warnings[0]


def test_nothing_went_wrong_unseen(rig: Rig) -> None:
    """Last: no error that the tests above did not ask for."""
    wanted = ("boom", "again", "Traceback", "stubborn", "cancels_itself", "soft", "hard", "flaky",
              "leaves", "SystemExit(3)")  # fmt: skip
    lines = [
        line for line in rig.worker.log.read_text().splitlines() if " error " in line or " critical " in line
    ]
    assert [line for line in lines if not any(word in line for word in wanted)] == []
