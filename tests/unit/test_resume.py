"""Loops that go on where the attempt before left off."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from errands import Errands, Retry, Run, RunCancelled, Settings, State
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.errors import CheckpointLost, ConfigurationError
from errands.core.events import Event, Kind
from errands.testing import events_of, inline
from errands.worker import stop_flag
from errands.worker.inline import InlineRuns
from errands.worker.resume import HandOver

RUN = "01a200a4-b400-7659-86b6-d6aedb9f3ad3"


@dataclass(frozen=True)
class Row:
    id: int


ROWS = [Row(number) for number in range(1, 11)]


def by_id(row: Row) -> int:
    return row.id


@pytest.fixture(autouse=True)
def now() -> Iterator[FakeClock]:
    fake = FakeClock()
    with clock.use(fake):
        yield fake


class Log(InlineRuns):
    """Counts what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[Any] = []

    def tell(self, event: Event, **options: Any) -> None:
        if event.kind is Kind.CHECKPOINT:
            self.written.append(event.checkpoint)
        super().tell(event, **options)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def attempt(log: Log, now: FakeClock) -> Callable[[], Run]:
    """Begins the next attempt."""

    def begin() -> Run:
        number = log.record(Event(kind=Kind.STARTED, run_id=RUN, at=now.timestamp()), hop=0).attempt
        return Run(RUN, "import", attempt=number, log=log)

    return begin


def killed_at(loop: Any, last: int) -> list[int]:
    """The ids of the rows whose work was begun, up to the row with the id `last`, and no further."""
    seen = []
    for row in loop:
        seen.append(row.id)
        if row.id == last:
            break
    return seen


async def killed_at_async(loop: Any, last: int) -> list[int]:
    seen = []
    async for row in loop:
        seen.append(row.id)
        if row.id == last:
            break
    return seen


async def stream(rows: list[Row]) -> AsyncIterator[Row]:
    for row in rows:
        yield row


def test_after_a_kill_only_the_row_at_hand_is_done_again(attempt: Callable[[], Run]) -> None:
    assert killed_at(attempt().resume(ROWS, key=by_id, every=0), 4) == [1, 2, 3, 4]
    assert killed_at(attempt().resume(ROWS, key=by_id, every=0), 7) == [4, 5, 6, 7]
    assert killed_at(attempt().resume(ROWS, key=by_id, every=0), 99) == [7, 8, 9, 10]
    assert killed_at(attempt().resume(ROWS, key=by_id, every=0), 99) == []


async def test_asynchronously(attempt: Callable[[], Run]) -> None:
    assert await killed_at_async(attempt().resume(stream(ROWS), key=by_id, every=0), 4) == [1, 2, 3, 4]
    assert await killed_at_async(attempt().resume(ROWS, key=by_id, every=0), 7) == [4, 5, 6, 7]
    assert await killed_at_async(attempt().resume(stream(ROWS), key=by_id, every=0), 99) == [7, 8, 9, 10]
    with pytest.raises(TypeError, match="async for"):
        list(attempt().resume(stream(ROWS), key=by_id))


def test_it_is_written_once_in_a_while(attempt: Callable[[], Run], log: Log, now: FakeClock) -> None:
    for _ in attempt().resume(ROWS, key=by_id, every=1):
        now.advance(0.3)
    told = [mark[""]["key"] for mark in log.written]
    assert told == [1, 5, 9, 10]


def test_what_was_not_written_is_when_the_attempt_fails(attempt: Callable[[], Run], now: FakeClock) -> None:
    run = attempt()
    with pytest.raises(ValueError, match="row 5"):
        for row in run.resume(ROWS, key=by_id, every=60):
            if row.id == 5:
                raise ValueError("row 5")
    run.flush()
    assert attempt().checkpoint() == 4
    assert killed_at(attempt().resume(ROWS, key=by_id), 99) == [5, 6, 7, 8, 9, 10]


def test_the_query_may_begin_after_the_checkpoint(attempt: Callable[[], Run]) -> None:
    run = attempt()
    assert run.checkpoint() is None
    killed_at(run.resume(ROWS, key=by_id, every=0), 4)
    run = attempt()
    assert run.checkpoint() == 3
    left = [row for row in ROWS if row.id > run.checkpoint()]
    assert killed_at(run.resume(left, key=by_id), 99) == [4, 5, 6, 7, 8, 9, 10]


def test_rows_with_ascending_keys_may_come_and_go(attempt: Callable[[], Run]) -> None:
    killed_at(attempt().resume([Row(n) for n in (10, 20, 30, 40)], key=by_id, every=0), 40)
    assert killed_at(attempt().resume([Row(n) for n in (5, 20, 35, 50)], key=by_id), 99) == [35, 50]


def test_keys_that_do_not_ascend_are_refused_at_first_sight(attempt: Callable[[], Run]) -> None:
    with pytest.raises(ValueError, match=r"must ascend, and 2 came after 3.*ordered=False"):
        killed_at(attempt().resume([Row(1), Row(3), Row(2)], key=by_id), 99)
    with pytest.raises(ValueError, match="must ascend, and 1 came after 1"):
        killed_at(attempt().resume([Row(1), Row(1)], key=by_id), 99)


def test_rows_in_no_order_must_be_there_again(attempt: Callable[[], Run]) -> None:
    rows = [Row(n) for n in (3, 1, 2, 5)]
    killed_at(attempt().resume(rows, key=by_id, ordered=False, every=0), 2)
    run = attempt()
    assert run.checkpoint() is None  # such a loop begins with the first row
    assert killed_at(run.resume(rows, key=by_id, ordered=False), 99) == [2, 5]
    with pytest.raises(CheckpointLost, match="row 4 was 5 in the attempt before, and is 2 now"):
        killed_at(attempt().resume([Row(9), *rows], key=by_id, ordered=False), 99)
    with pytest.raises(CheckpointLost, match="4 rows were done before, and there are 2 now"):
        killed_at(attempt().resume(rows[:2], key=by_id, ordered=False), 99)
    with pytest.raises(CheckpointLost, match="was ordered before and is not now, or the other way round"):
        killed_at(attempt().resume(sorted(rows, key=by_id), key=by_id), 99)


def test_without_keys_positions_count(attempt: Callable[[], Run]) -> None:
    killed_at(attempt().resume(ROWS, every=0), 4)
    assert killed_at(attempt().resume(iter(ROWS)), 99) == [4, 5, 6, 7, 8, 9, 10]
    assert attempt().checkpoint() is None


def test_in_chunks(attempt: Callable[[], Run]) -> None:
    first = attempt()
    seen = []
    for rows in first.resume(ROWS, key=by_id, every=0, chunk=4):
        seen.append([row.id for row in rows])
        if len(seen) == 2:
            break
    assert seen == [[1, 2, 3, 4], [5, 6, 7, 8]]
    again = attempt().resume(ROWS, key=by_id, chunk=4, total=10)
    assert [[row.id for row in rows] for rows in again] == [[5, 6, 7, 8], [9, 10]]


def test_progress_counts_over_all_attempts(attempt: Callable[[], Run], log: Log) -> None:
    killed_at(attempt().resume(ROWS, key=by_id, every=0, total=10), 6)
    run = attempt()
    killed_at(run.resume(ROWS, key=by_id, every=0, total=10), 8)
    assert run.last_progress == {"current": 7, "total": 10, "percentage": 70, "note": ""}
    killed_at(run.resume(ROWS, key=by_id, name="again", total=10), 99)
    assert run.last_progress["current"] == 10


def test_several_loops_have_names(attempt: Callable[[], Run]) -> None:
    run = attempt()
    killed_at(run.resume(ROWS, key=by_id, name="mails", every=0), 99)
    killed_at(run.resume(ROWS, key=by_id, name="pushes", every=0), 3)
    run = attempt()
    assert (run.checkpoint("mails"), run.checkpoint("pushes")) == (10, 2)
    assert killed_at(run.resume(ROWS, key=by_id, name="mails"), 99) == []
    assert killed_at(run.resume(ROWS, key=by_id, name="pushes"), 4) == [3, 4]
    with pytest.raises(ConfigurationError, match="import: two loops of one run are named 'mails'"):
        killed_at(run.resume(ROWS, key=by_id, name="mails"), 99)


def test_a_loop_inside_of_another(attempt: Callable[[], Run]) -> None:
    def work(until: tuple[int, int]) -> list[tuple[int, int]]:
        run, done = attempt(), []
        for course in run.resume(ROWS[:3], key=by_id, name="courses"):
            for student in run.resume(ROWS[:3], key=by_id, name="students", every=0):
                done.append((course.id, student.id))
                if done[-1] == until:
                    return done
        return done

    assert work((2, 2)) == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
    assert work((3, 1)) == [(2, 2), (2, 3), (3, 1)]
    assert work((9, 9)) == [(3, 1), (3, 2), (3, 3)]
    assert work((9, 9)) == []


def test_what_an_inner_loop_did_belongs_to_its_outer_row(attempt: Callable[[], Run]) -> None:
    run = attempt()
    for _ in run.resume(ROWS[:3], key=by_id, name="courses", every=0):
        killed_at(run.resume(ROWS, key=by_id, name="students", every=0), 4)
        break
    run = attempt()
    for _ in run.resume([Row(2)], key=by_id, name="courses"):  # course 1 is gone
        assert killed_at(run.resume(ROWS, key=by_id, name="students"), 2) == [1, 2]


def test_commits_go_before_checkpoints(attempt: Callable[[], Run], log: Log, now: FakeClock) -> None:
    order: list[Any] = []
    run = attempt()
    rows = run.resume(ROWS[:5], key=by_id, every=1, commit=lambda: order.append(("commit", len(log.written))))
    with pytest.raises(ValueError, match="row 4"):
        for row in rows:
            order.append(row.id)
            now.advance(0.6)
            if row.id == 4:
                raise ValueError("row 4")
    run.flush()  # the session was rolled back: what it held is done again
    assert order == [1, ("commit", 0), 2, 3, ("commit", 1), 4]
    assert attempt().checkpoint() == 3
    assert killed_at(attempt().resume(ROWS[:5], key=by_id, commit=lambda: order.append("last")), 99) == [4, 5]
    assert order[-1] == "last"


async def test_commits_of_asyncio(attempt: Callable[[], Run]) -> None:
    commits = []

    async def commit() -> None:
        commits.append(1)

    await killed_at_async(attempt().resume(ROWS, key=by_id, every=0, commit=commit), 99)
    assert len(commits) == 11
    with pytest.raises(TypeError, match=r"commit=…\) is asynchronous"):
        killed_at(attempt().resume([Row(11), Row(12)], key=by_id, every=0, commit=commit), 99)


@pytest.mark.parametrize(
    "key",
    [None, object(), {"a": 1}, float("nan"), b"x", 2**63, [1, None], clock.now()],
    ids=lambda key: type(key).__name__,
)
def test_keys_that_json_has_no_room_for_are_refused(attempt: Callable[[], Run], key: object) -> None:
    with pytest.raises(TypeError, match="must be a number, a text, or a list of them"):
        list(attempt().resume([1], key=lambda _: key))


def test_other_mistakes(attempt: Callable[[], Run]) -> None:
    with pytest.raises(ValueError, match="a key of more than 1000 bytes"):
        list(attempt().resume([1], key=lambda _: "x" * 1000))
    with pytest.raises(TypeError, match="'a' and 1 cannot be compared"):
        list(attempt().resume([1, "a"], key=lambda row: row))
    with pytest.raises(ConfigurationError, match=r"import: run.resume.every=-1"):
        attempt().resume([], every=-1)
    with pytest.raises(ConfigurationError, match=r"import: run.resume.chunk=0"):
        attempt().resume([], chunk=0)


def test_lists_are_keys(attempt: Callable[[], Run]) -> None:
    rows = [("a", 1), ("a", 2), ("b", 1)]
    for row in attempt().resume(rows, key=lambda row: row, every=0):
        if row == ("a", 2):
            break
    assert list(attempt().resume(rows, key=lambda row: row)) == [("a", 2), ("b", 1)]


def test_a_stopping_worker_is_left_between_two_rows(attempt: Callable[[], Run]) -> None:
    done = []
    try:
        with pytest.raises(HandOver):
            for row in attempt().resume(ROWS, key=by_id, every=60):
                done.append(row.id)
                stop_flag.set_stopping(row.id == 4)
    finally:
        stop_flag.set_stopping(False)
    assert done == [1, 2, 3, 4]
    assert killed_at(attempt().resume(ROWS, key=by_id), 99) == [5, 6, 7, 8, 9, 10]


def test_a_late_attempt_neither_goes_on_nor_moves_the_checkpoint(
    attempt: Callable[[], Run], log: Log
) -> None:
    late = iter(attempt().resume(ROWS, key=by_id, every=0))
    assert next(late).id == 1
    assert killed_at(attempt().resume(ROWS, key=by_id, every=0), 6) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(RunCancelled, match="another attempt"):
        next(late)
    assert log.checkpoint(RUN) == {"": {"key": 5, "count": 5}}


# -- in inline mode


@pytest.fixture
def app() -> Errands:
    return Errands("test", settings=Settings(inline=True))


def test_a_retry_goes_on_with_the_row_that_failed(app: Errands) -> None:
    done = []

    @app.task(name="import", retry=Retry(3))
    async def import_rows(*, run: Run) -> int:
        async for row in run.resume(stream(ROWS), key=by_id, total=len(ROWS)):
            done.append((run.attempt, row.id))
            if run.attempt == 1 and row.id == 3:
                raise ConnectionError
        return len(done)

    with inline(app) as runs:
        result = import_rows.delay()
        assert result.get() == 11
        told = [event.checkpoint for event in events_of(runs, result.id) if event.kind is Kind.CHECKPOINT]
    assert done == [(1, 1), (1, 2), (1, 3), *((2, number) for number in range(3, 11))]
    assert told[-1] == {"": {"key": 10, "count": 10}}


def test_a_run_that_has_succeeded_begins_anew_when_a_person_wants_it_again(app: Errands) -> None:
    @app.task(name="import")
    def import_rows(*, run: Run) -> int:
        return len(list(run.resume(ROWS, key=by_id)))

    with inline(app) as runs:
        result = import_rows.delay()
        assert result.get() == 10
        runs.record(Event(kind=Kind.REOPENED, run_id=result.id, at=clock.timestamp(), attempt=1), hop=1)
        assert import_rows.apply(task_id=result.id).get() == 10
        found = runs.get(result.id)
    assert found is not None
    assert found.state is State.SUCCEEDED


def test_a_run_made_by_hand_keeps_its_checkpoint_itself() -> None:
    run = Run("1", "import")
    assert killed_at(run.resume(ROWS, key=by_id, every=0), 4) == [1, 2, 3, 4]
    assert run.checkpoint() == 3
