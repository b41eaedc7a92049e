"""When a schedule is due: the same answer whenever and wherever it is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from celery.schedules import crontab, schedule

from errands.beat.due import first_due, latest_due
from errands.core.schedule import run_id


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(zone: str = "UTC", **fields: object) -> crontab:
    return crontab(**fields, app=Celery(set_as_current=False, timezone=zone))


def test_the_next_time_and_the_last_one() -> None:
    hourly = cron(minute=0)
    assert first_due(hourly, at("2026-01-01 12:00")) == at("2026-01-01 13:00")
    assert latest_due(hourly, at("2026-01-01 12:00"), at("2026-01-01 12:59:59")) is None
    assert latest_due(hourly, at("2026-01-01 12:00"), at("2026-01-01 13:00")) == at("2026-01-01 13:00")


@pytest.mark.parametrize("away", [timedelta(hours=3, minutes=7), timedelta(days=9), timedelta(days=400)])
def test_after_an_absence_the_last_due_time_counts(away: timedelta) -> None:
    start = at("2026-01-01 01:00")
    found = latest_due(cron(hour=1, minute=0), start, start + away)
    expected = start + timedelta(days=away.days) if away.days else None
    assert found == expected
    minutes = latest_due(cron(minute="*/5"), start, start + away)
    assert minutes == start + timedelta(minutes=(away // timedelta(minutes=5)) * 5)


def test_an_interval_keeps_its_grid() -> None:
    every = schedule(timedelta(seconds=30))
    start = at("2026-01-01 12:00:07")
    assert first_due(every, start) == at("2026-01-01 12:00:37")
    assert latest_due(every, start, at("2026-01-01 12:10:00")) == at("2026-01-01 12:09:37")
    assert latest_due(every, start, at("2026-01-01 12:00:36")) is None
    with pytest.raises(ValueError, match="interval"):
        first_due(schedule(timedelta(0)), start)


def test_a_relative_interval_is_rounded() -> None:
    hourly = schedule(timedelta(hours=1), relative=True, app=Celery(set_as_current=False))
    assert first_due(hourly, at("2026-01-01 12:20")) == at("2026-01-01 13:00")


def test_wall_clock_time_in_the_apps_zone_over_both_changes() -> None:
    daily = cron("Europe/Berlin", hour=2, minute=30)
    # On 29 March 2026 there is no 02:30; on 25 October there are two.
    assert first_due(daily, at("2026-03-28 02:00")) == at("2026-03-29 01:30")
    assert first_due(daily, at("2026-03-29 01:30")) == at("2026-03-30 00:30")
    assert first_due(daily, at("2026-10-24 12:00")) == at("2026-10-25 00:30")
    assert first_due(daily, at("2026-10-25 00:30")) == at("2026-10-26 01:30")


def test_it_gets_on_within_the_repeated_hour() -> None:
    often = cron("Europe/Berlin", minute="*/20")
    seen, now = [], at("2026-10-25 00:00")
    while now < at("2026-10-25 03:00"):
        now = first_due(often, now)
        seen.append(now)
    assert seen == sorted(set(seen))


def test_a_run_id_is_made_of_the_due_time_alone() -> None:
    due = at("2026-01-01 13:00")
    berlin = due.astimezone(datetime.now().astimezone().tzinfo)
    assert run_id("school", "hourly", due) == run_id("school", "hourly", berlin)
    others = {run_id("school", "daily", due), run_id("app", "hourly", due)}
    assert run_id("school", "hourly", due) not in others
