"""A run that is no longer wanted ends at its next step, and cleans up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from errands import Errands, Retry, Run, RunCancelled, Settings, State
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.events import Event, Kind
from errands.testing import events_of, inline
from errands.worker.inline import InlineRuns
from errands.worker.run import current_run


@pytest.fixture
def app() -> Errands:
    return Errands("test", settings=Settings(inline=True))


@pytest.fixture
def runs(app: Errands, errands_clock: FakeClock) -> Iterator[InlineRuns]:
    with inline(app) as found:
        yield found


def revoke(runs: InlineRuns) -> None:
    """What `Actions.revoke` records."""
    run = current_run()
    assert run is not None
    runs.record(Event(kind=Kind.REVOKED, run_id=run.id, at=clock.timestamp()))


def test_progress_and_check_end_a_revoked_run(app: Errands, runs: InlineRuns) -> None:
    steps: list[str] = []

    @app.task(name="long", retry=Retry(3))
    def long(way: str, *, run: Run) -> None:
        try:
            for number in range(1, 4):
                try:
                    steps.append(f"{number}")
                    if way == "progress":
                        run.progress(number, 3)
                    else:
                        run.check(within=0)
                    if number == 1:
                        assert not run.cancelled
                        revoke(runs)
                        clock.pass_time(1)
                except Exception:
                    steps.append("swallowed")
        finally:
            steps.append("cleaned")

    for way in ("progress", "check"):
        steps.clear()
        found = runs.get(long.delay(way).id)
        assert found is not None
        assert (found.state, found.attempt) == (State.REVOKED, 1)
        assert steps == ["1", "2", "cleaned"]


def test_nothing_is_recorded_of_the_end(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="long")
    async def long(*, run: Run) -> None:
        revoke(runs)
        run.check(within=0)

    result = long.delay()
    assert [event.kind for event in events_of(runs, result.id)] == [Kind.QUEUED, Kind.STARTED, Kind.REVOKED]


def test_rows_that_are_left_are_not_begun(app: Errands, runs: InlineRuns) -> None:
    done = []

    @app.task(name="long")
    def long(*, run: Run) -> None:
        for number in run.resume(range(1, 10), key=int, every=0):
            done.append(number)
            if number == 3:
                revoke(runs)

    found = runs.get(long.delay().id)
    assert found is not None
    assert found.state is State.REVOKED
    assert done == [1, 2, 3]


def test_in_a_task_group(app: Errands, runs: InlineRuns) -> None:
    """A group raises what ends it in a group of errors."""

    @app.task(name="long", retry=Retry(3))
    async def long(*, run: Run) -> None:
        async def child() -> None:
            await asyncio.sleep(0)
            run.check(within=0)

        revoke(runs)
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    found = runs.get(long.delay().id)
    assert found is not None
    assert (found.state, found.attempt) == (State.REVOKED, 1)


def test_a_group_of_other_errors_is_a_failure(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="long", retry=Retry(1))
    def long() -> None:
        raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])

    result = long.apply()
    found = runs.get(result.id)
    assert found is not None
    assert (found.state, found.attempt) == (State.FAILED, 2)


def test_the_question(app: Errands, runs: InlineRuns) -> None:
    answers: list[Any] = []

    @app.task(name="long")
    def long(*, run: Run) -> str:
        answers.append(run.cancelled)
        revoke(runs)
        answers.append(run.cancelled)  # asked again too soon: the answer of before
        clock.pass_time(1)
        answers.append(run.cancelled)
        return "a part"

    found = runs.get(long.delay().id)
    assert answers == [False, False, True]
    assert found is not None
    assert found.state is State.REVOKED


def test_a_run_made_by_hand_is_never_cancelled() -> None:
    run = Run("1", "long")
    run.check()
    run.progress(1)
    assert not run.cancelled


def test_it_is_no_exception() -> None:
    assert not issubclass(RunCancelled, Exception)
