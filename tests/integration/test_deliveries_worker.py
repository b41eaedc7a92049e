"""Bulk runs in real processes: killed, stopped and resumed, and nobody is sent to twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from errands import State
from errands.deliveries import DeliveryState
from errands.ops.access import ADMIN, Person
from errands.ops.deliveries import DeliveryOps
from errands.store import deliveries
from ops_app import record
from processes import until
from work_rig import POOLS, Work, working

ROOT = Person("root", frozenset({ADMIN}))
ALL = 1000


@pytest.fixture(params=POOLS)
def work(request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path) -> Iterator[Work]:
    with working(request.param, valkey_url, tmp_path) as found:
        yield found


def totals(work: Work, run_id: str) -> dict[str, int]:
    with work.app.database.reading() as connection:
        return deliveries.totals(connection, run_id).as_dict()


def test_a_worker_that_is_killed_in_the_middle_leaves_a_few_unknown_and_sends_to_nobody_twice(
    work: Work,
) -> None:
    """Fault 3: 500 of 1,000."""
    worker = work.start()
    run_id = work.send("send_to_all", ALL, 500, str(work.go))
    work.wait_for("waits", 4)
    worker.kill()
    work.go.touch()
    work.start()
    run = work.ended(run_id, seconds=90)
    assert (run.state, run.attempt) == (State.SUCCEEDED, 2)

    found = totals(work, run_id)
    assert run.facts["result"] == found
    assert (found["sent"], found["bounced"], found["unknown"]) == (986, 10, 4)
    with work.app.database.reading() as connection:
        unknown = deliveries.page(connection, run_id, -1, ALL, [DeliveryState.UNKNOWN])
    under_way = {int(word) for word in work.words("waits")}
    assert {row.position for row in unknown} == under_way
    assert {row.reason for row in unknown} == {"its worker ended while it was under way"}
    # All others exactly once.
    assert sorted(map(int, work.words("sent"))) == [
        n for n in range(ALL) if n % 100 != 99 and n not in under_way
    ]


def test_a_worker_that_is_stopped_hands_over_and_nobody_is_unknown(work: Work) -> None:
    worker = work.start()
    run_id = work.send("send_to_all", ALL, 500, str(work.go))
    work.wait_for("waits", 4)
    work.terminate(worker)
    work.go.touch()
    before = len(work.words("sent"))
    work.start()
    run = work.ended(run_id, seconds=90)
    assert (run.state, run.attempt) == (State.SUCCEEDED, 1)  # a hand-over does not count
    found = totals(work, run_id)
    assert (found["sent"], found["bounced"], found["unknown"]) == (990, 10, 0)
    assert sorted(map(int, work.words("sent"))) == [n for n in range(ALL) if n % 100 != 99]
    assert before < 990


def test_who_was_refused_is_sent_to_again_by_the_same_run(work: Work) -> None:
    work.start()
    run_id = work.send("send_to_all", 300, 300, str(work.go))
    assert work.ended(run_id).facts["result"]["bounced"] == 3
    record(work.app)
    (work.folder / "mended").touch()
    answer = DeliveryOps(work.app).resend_failed(ROOT, run_id, reason="their server is back")
    assert (answer["task_id"], answer["attempt"], answer["recipients"]) == (run_id, 2, 3)
    until(lambda: work.run(run_id).attempt == 2 and work.run(run_id).final, what="it has ended again")
    assert work.run(run_id).facts["result"]["sent"] == 300
    assert sorted(map(int, work.words("sent"))) == list(range(300))
