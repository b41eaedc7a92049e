"""Loops that go on where a worker died, or was stopped: real processes, real signals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from errands import State
from errands.beat.recorder import Recorder
from errands.broker.events import EventStream
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from errands.store.effects import read_checkpoint
from work_rig import POOLS, Work, working

ROOT = Person("root", frozenset({ADMIN}))


@pytest.fixture(params=POOLS)
def work(request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path) -> Iterator[Work]:
    with working(request.param, valkey_url, tmp_path) as found:
        yield found


@pytest.fixture
def one_pool(valkey_url: str, tmp_path: Path) -> Iterator[Work]:
    with working("asyncio", valkey_url, tmp_path) as found:
        yield found


@pytest.mark.parametrize("name", ["work_off", "work_off_plainly"])
def test_a_killed_worker_leaves_one_row_to_be_done_again(work: Work, name: str) -> None:
    """1,000 rows, written after each: none is lost, and none but the one at hand is done twice."""
    worker = work.start()
    run_id = work.send(name, 1000, 0, 500, str(work.go))
    work.wait_for("waits")
    worker.kill()
    assert [int(word) for word in work.words("row")] == list(range(1, 500))
    work.go.touch()
    work.start()
    run = work.ended(run_id)
    assert (run.state, run.attempt, run.facts["result"]) == (State.SUCCEEDED, 2, 501)
    assert [int(word) for word in work.words("row")] == list(range(1, 1001))


def test_without_a_wait_after_each_row_a_second_of_work_is_done_again_at_most(work: Work) -> None:
    worker = work.start()
    run_id = work.send("work_off", 1000, 0.05, 900, str(work.go))
    work.wait_for("waits")
    worker.kill()
    checkpoint = (work.app.live.checkpoint(run_id) or {})[""]["key"]
    assert 1 <= checkpoint < 900
    work.go.touch()
    work.start()
    assert work.ended(run_id).facts["result"] == 1000 - checkpoint
    times = Counter(int(word) for word in work.words("row"))
    assert sorted(times) == list(range(1, 1001))
    assert {number for number, count in times.items() if count > 1} == set(range(checkpoint + 1, 900))


def test_a_deploy_does_nothing_twice(work: Work) -> None:
    """TERM: between two rows the run is handed over, with its checkpoint, and is no attempt less."""
    worker = work.start()
    run_id = work.send("work_on")
    for deploys in (1, 2):
        work.wait_for("row", 10 * deploys)
        work.terminate(worker)
        assert work.run(run_id).state is State.RETRYING
        rows = [int(word) for word in work.words("row")]
        assert rows == list(range(1, len(rows) + 1))
        worker = work.start()
        work.wait_for("goes-on-after", deploys + 1)
        assert int(work.words("goes-on-after")[-1]) == len(rows)
    assert work.run(run_id).attempt == 1


def test_a_retry_goes_on_with_the_row_that_failed(work: Work) -> None:
    work.start()
    assert work.ended(work.send("fail_at", 6, 4)).state is State.SUCCEEDED
    assert work.words("row") == ["1", "2", "3", "4", "4", "5", "6"]


def test_a_soft_time_limit_keeps_what_was_done(work: Work) -> None:
    work.start()
    assert work.ended(work.send("limited", 5)).state is State.SUCCEEDED
    assert work.words("row") == ["1", "2", "3", "3", "4", "5"]


def test_the_ledger_remembers_when_valkey_has_forgotten(one_pool: Work) -> None:
    work = one_pool
    worker = work.start()
    run_id = work.send("work_off", 100, 0, 50, str(work.go))
    work.wait_for("waits")
    Actions(work.app).revoke(ROOT, run_id)
    worker.kill()
    stream = EventStream(work.app.valkey, work.app.keys.events)
    Recorder(stream, work.app.database).step()
    with work.app.database.reading() as connection:
        found = read_checkpoint(connection, run_id)
    assert found is not None
    work.app.valkey.flushall()
    work.go.touch()
    work.start()
    Actions(work.app).retry(ROOT, run_id)
    assert work.ended(run_id).state is State.SUCCEEDED
    rows = [int(word) for word in work.words("row")]
    # It hears of a checkpoint once a second.
    assert rows == [*range(1, 50), *range(found[""]["key"] + 1, 101)]
