"""Schedules as an application declares them, and as its tests run them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain
from celery.schedules import crontab

from errands import ConfigurationError, CpuBelow, Errands, QueueBelow, Run, Settings, testing
from errands.core import clock
from errands.core.clock import FakeClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def app(tmp_path: Path, seen: list[Any]) -> Errands:
    app = Errands("shop", settings=Settings(home=tmp_path, inline=True), set_as_current=False)

    @app.task(name="count")
    def count(days: int = 1, *, run: Run) -> int:
        seen.append((run.schedule, run.scheduled_for, days))
        return days

    return app


@pytest.fixture
def now() -> Iterator[FakeClock]:
    with clock.use(FakeClock(NOON)) as fake:
        assert isinstance(fake, FakeClock)
        yield fake


def test_it_is_declared_by_task_signature_or_name(app: Errands) -> None:
    count = app.tasks["count"]
    app.schedule("a", count, cron="0 2 * * *", tz="Europe/Berlin", jitter=30)
    app.schedule("b", count.s(days=7).set(queue="slow", expires=60), every=timedelta(hours=1))
    app.schedule("c", "count", at=NOON, only_if=[QueueBelow("celery", 5), CpuBelow(80)], patience=60)
    a, b, c = app.declared_schedules.values()
    assert (a.task, str(a.rule), a.jitter) == ("count", "cron 0 2 * * * Europe/Berlin", 30)
    assert (b.kwargs, b.options) == ({"days": 7}, {"queue": "slow", "expires": 60})
    assert (str(c.rule), c.only_if) == (
        "once 2026-01-01T12:00:00+00:00",
        (QueueBelow("celery", 5), CpuBelow(80)),
    )


def test_a_cron_line_is_read_in_the_apps_time_zone_unless_it_says_another(app: Errands) -> None:
    app.conf.timezone = "Europe/Vienna"
    app.schedule("a", "count", cron="0 2 * * *")
    app.schedule("b", "count", cron="0 2 * * *", tz="UTC")
    assert [str(each.rule)[-13:] for each in app.declared_schedules.values()] == [
        "Europe/Vienna",
        "0 2 * * * UTC",
    ]


@pytest.mark.parametrize(
    ("name", "call", "said", "why"),
    [
        ("a/b", "count", {"every": 60}, "no slash"),
        ("", "count", {"every": 60}, "a name has up to"),
        (" a", "count", {"every": 60}, "no space"),
        ("a\n", "count", {"every": 60}, "a name has up to"),
        ("nightly", "count", {}, "schedule 'nightly': say when"),
        ("nightly", "count", {"cron": "*/0 * * * *"}, "schedule 'nightly': cron .*: minute: a step of 0"),
        ("nightly", "count", {"every": 60, "overlap": "kill"}, "schedule 'nightly': overlap"),
        ("nightly", "count", {"every": 60, "only_if": "idle"}, "schedule 'nightly': idle is no condition"),
        ("nightly", 5, {"every": 60}, "cannot be scheduled"),
        ("nightly", chain(), {"every": 60}, "cannot be scheduled|one task"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(
    app: Errands, name: str, call: Any, said: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        app.schedule(name, call, **said)
    assert app.declared_schedules == {}


def test_a_name_is_used_once(app: Errands) -> None:
    app.schedule("nightly", "count", every=60)
    with pytest.raises(ConfigurationError, match="'nightly' is declared twice"):
        app.schedule("nightly", "count", every=60)
    app.conf.beat_schedule = {"nightly": {"task": "count", "schedule": 60}}
    with pytest.raises(ConfigurationError, match="'nightly' is declared twice"):
        app.check()


def test_an_unregistered_task_is_refused_at_start(app: Errands) -> None:
    """Mistake 1: scheduled tasks lived in modules that no worker imported."""
    app.schedule("nightly", "cuont", every=60)
    with pytest.raises(
        ConfigurationError, match=r"'nightly' names the task 'cuont', which is not registered"
    ):
        app.check()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"queue": "nowhere"}, "'nightly' waits in the queue 'nowhere', which the app does not have"),
        ({"countdown": "soon"}, "'nightly': countdown='soon': use seconds"),
        ({"priority": "urgent"}, "'nightly': priority='urgent'"),
    ],
)
def test_options_that_no_call_could_have_are_refused_at_start(
    app: Errands, options: dict[str, Any], why: str
) -> None:
    app.schedule("nightly", app.signature("count").set(**options), every=60)
    with pytest.raises(ConfigurationError, match=why):
        app.check()


def test_celerys_entries_are_schedules_as_well(app: Errands, now: FakeClock, seen: list[Any]) -> None:
    app.conf.beat_schedule = {
        "hourly": {"task": "count", "schedule": crontab(minute="0"), "kwargs": {"days": 3}},
        "often": {"task": "count", "schedule": 1200.0},
    }
    with testing.inline(app):
        times = testing.run_schedules(app, NOON + timedelta(hours=1))
    assert [(time.schedule, f"{time.due:%H:%M}") for time in times] == [
        ("often", "12:20"), ("often", "12:40"), ("hourly", "13:00"), ("often", "13:00"),
    ]  # fmt: skip
    assert ("hourly", NOON + timedelta(hours=1), 3) in seen


def test_an_entry_of_celerys_that_says_nothing_is_refused(app: Errands) -> None:
    app.conf.beat_schedule = {"odd": {"task": "count"}}
    with pytest.raises(ConfigurationError, match="'odd' in beat_schedule"):
        app.check()


def test_a_test_lets_the_time_pass_and_sees_what_was_due(
    app: Errands, now: FakeClock, seen: list[Any]
) -> None:
    app.schedule("nightly", app.tasks["count"].s(days=2), cron="0 2 * * *", tz="Europe/Berlin")
    with testing.inline(app) as runs:
        times = testing.run_schedules(app, NOON + timedelta(days=3))
        ended = [runs.get(str(time.run_id)) for time in times]
        assert all(run is not None and run.state == "succeeded" for run in ended)
    assert clock.now() == NOON + timedelta(days=3)
    assert [time.due for time in times] == [datetime(2026, 1, day, 1, tzinfo=UTC) for day in (2, 3, 4)]
    assert seen == [("nightly", time.due, 2) for time in times]
    with testing.inline(app):
        (later,) = testing.run_schedules(app, NOON + timedelta(days=4))
    assert later.due == datetime(2026, 1, 5, 1, tzinfo=UTC)


def test_it_may_be_captured_instead(app: Errands, now: FakeClock, seen: list[Any]) -> None:
    app.schedule("hourly", "count", every=3600)
    with testing.capture(app) as enqueued:
        testing.run_schedules(app, NOON + timedelta(hours=2))
        assert len(enqueued) == 2
        assert seen == []
        enqueued.drain()
    assert [due for _, due, _ in seen] == [NOON + timedelta(hours=1), NOON + timedelta(hours=2)]


def test_it_may_be_told_how_busy_the_system_is(app: Errands, now: FakeClock) -> None:
    app.schedule("gentle", "count", every=600, only_if=CpuBelow(50))
    with testing.inline(app):
        busy = testing.run_schedules(app, NOON + timedelta(minutes=20), load=testing.FakeLoad(percent=90))
        idle = testing.run_schedules(app, NOON + timedelta(minutes=40))
    # Its last time is put off to this moment, and longer.
    assert [time.outcome for time in busy] == ["skipped"]
    assert [time.outcome for time in idle] == ["sent", "sent"]


def test_without_a_clock_that_moves_it_says_so(app: Errands) -> None:
    app.schedule("hourly", "count", every=3600)
    with testing.inline(app), pytest.raises(RuntimeError, match="errands_clock"):
        testing.run_schedules(app, clock.now() + timedelta(days=1))
