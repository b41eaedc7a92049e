"""A run with a deadline: nothing of it begins or goes on after that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from errands import ConfigurationError, Errands, InvalidArguments, Retry, Settings, Snooze, State, Unique
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.errors import DeadlinePassed
from errands.core.outcome import Again, Done, Over
from errands.core.retry import Retry as Policy
from errands.ops.access import Person
from errands.ops.views import Ops
from errands.testing import capture, inline
from errands.worker import deadlines


@pytest.fixture
def app() -> Errands:
    return Errands("deadlines", settings=Settings(inline=False))


def test_another_attempt_that_would_come_too_late_is_not_made() -> None:
    envelope = {"deadline": 1_000.0}
    again = Again(ValueError("no"), 10.0, counted=True)
    with clock.use(FakeClock(datetime.fromtimestamp(980, UTC))):
        assert deadlines.in_time(again, envelope) is again
        assert deadlines.in_time(again, {}) is again
    with clock.use(FakeClock(datetime.fromtimestamp(990, UTC))):
        assert deadlines.in_time(again, envelope) == Over(again.error, discarded=False)
        assert deadlines.in_time(Done(1), envelope) == Done(1)


def test_limits_end_where_the_run_does() -> None:
    with clock.use(FakeClock(datetime.fromtimestamp(900, UTC))):
        request = {"errands": {"deadline": 1_000.0}}
        assert deadlines.clipped(request, 1800, 1500) == (100 + deadlines.GRACE, 100)
        assert deadlines.clipped(request, None, None) == (100 + deadlines.GRACE, 100)
        assert deadlines.clipped(request, 30, 20) == (30, 20)
        assert deadlines.clipped({"errands": {}}, 30, None) == (30, None)
        assert deadlines.clipped({"errands": {"deadline": 899.0}}, 30, 20)[1] == pytest.approx(0.001)


def test_a_run_that_goes_on_failing_fails_at_its_deadline(app: Errands) -> None:
    tries = []

    @app.task(name="fails", retry=Policy(times=50, first=60, factor=1, jitter=0), deadline=150)
    def fails() -> None:
        tries.append(clock.timestamp())
        raise OSError("still away")

    with clock.use(FakeClock()), inline(app) as runs:
        result = fails.delay()
    assert len(tries) == 3
    run = runs.get(result.id)
    assert run is not None
    assert (run.state, run.facts["error"]["message"]) == (State.FAILED, "still away")


def test_a_run_that_puts_itself_off_past_its_deadline_says_so(app: Errands) -> None:
    @app.task(name="waits")
    def waits() -> None:
        raise Snooze(60, "not yet")

    with clock.use(FakeClock()), inline(app) as runs:
        result = waits.apply_async(deadline=30)
    run = runs.get(result.id)
    assert run is not None
    assert run.state is State.FAILED
    assert run.facts["error"]["type"] == DeadlinePassed.__name__
    assert "not yet" in run.facts["error"]["message"]


def test_a_call_has_the_last_word(app: Errands) -> None:
    @app.task(name="short", deadline=10)
    def short() -> None: ...

    with clock.use(FakeClock(datetime.fromtimestamp(1000, UTC))), app.capturing() as sent:
        short.delay()
        short.apply_async(deadline=100)
        short.apply_async(expires="1970-01-01T00:16:43+00:00")
    first, second, third = sent
    assert [first["expires"], second["expires"]] == [
        "1970-01-01T00:16:50+00:00", "1970-01-01T00:18:20+00:00",
    ]  # fmt: skip
    assert third["expires"] == "1970-01-01T00:16:43+00:00"


def test_the_runs_page_tells_when_it_is_over(app: Errands) -> None:
    @app.task(name="short", deadline=10)
    def short() -> None: ...

    admin = Person("ann", frozenset({"admin"}))
    with clock.use(FakeClock(datetime.fromtimestamp(1000, UTC))), inline(app):
        ids = [short.delay().id, short.apply_async(expires=5).id, short.apply_async(deadline=100).id]
        told = [Ops(app).run(admin, run_id)["expires_at"] for run_id in ids]
    assert told == ["1970-01-01T00:16:50.000Z", "1970-01-01T00:16:45.000Z", "1970-01-01T00:18:20.000Z"]


def nothing() -> None:
    """A task's function."""


@pytest.mark.parametrize("wrong", [0, -1, True, "soon"])
def test_no_time_at_all_is_refused(app: Errands, wrong: Any) -> None:
    @app.task(name="any")
    def any_task() -> None: ...

    with capture(app), pytest.raises(InvalidArguments, match="any: deadline="):
        any_task.apply_async(deadline=wrong)
    with pytest.raises(ConfigurationError, match="task 'none': deadline="):
        app.task(name="none", deadline=wrong, retry=Retry())(nothing)
        app.finalize()
        app.tasks["none"].arguments  # noqa: B018 - Celery may put the making of a task off


def test_a_deadline_before_the_start_is_refused(app: Errands) -> None:
    with pytest.raises(ConfigurationError, match="task 'late': deadline=5 is over before unique's wait=5 is"):
        app.task(name="late", deadline=5, unique=Unique(on_conflict="debounce", wait=5))(nothing)
        app.finalize()
        app.tasks["late"].arguments  # noqa: B018 - Celery may put the making of a task off


def test_a_soft_limit_beyond_the_hard_one_is_refused(app: Errands) -> None:
    def limits() -> None: ...

    with pytest.raises(ConfigurationError, match="'limits': soft_time_limit=60"):
        app.task(name="limits", soft_time_limit=60, time_limit=30)(limits)
        app.finalize()
