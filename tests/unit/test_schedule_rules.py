"""Rules, options and conditions of schedules: what is refused, and intervals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from errands import ConfigurationError, CpuBelow, QueueBelow
from errands.core.cron import Cron
from errands.core.schedule import Every, Once, Schedule, rule_of

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "one of cron=, every= and at="),
        ({"cron": "0 * * * *", "every": 60}, "not with cron and every"),
        ({"cron": "61 * * * *"}, "minute: 61"),
        ({"cron": "0 0 * * *", "tz": "Mars/Olympus"}, "no time zone"),
        ({"every": 0}, "tenth of a second"),
        ({"every": -5}, "tenth of a second"),
        ({"every": float("nan")}, "tenth of a second"),
        ({"every": float("inf")}, "tenth of a second"),
        ({"every": 1e300}, "ten years"),
        ({"every": 60, "tz": "Europe/Berlin"}, "belongs to a cron line"),
        ({"at": datetime(2026, 1, 1)}, "with a time zone"),
    ],
)
def test_rules_that_make_no_sense_are_refused_by_name(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s)schedule 'nightly'.*{why}"):
        rule_of("nightly", **said)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"catch_up": "some"}, "catch_up='some'"),
        ({"overlap": "kill"}, "overlap='kill'"),
        ({"jitter": -1}, "jitter=-1"),
        ({"jitter": 3600, "every": 3600}, "not shorter than"),
        ({"jitter": 3600}, "not shorter than the 3600 s"),
        ({"patience": 5}, "only_if"),
        ({"patience": 0, "only_if": (CpuBelow(5),)}, "patience=0"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"schedule 'tidy': .*{why}"):
        rule = rule_of("tidy", **({"every": said.pop("every")} if "every" in said else {"cron": "0 * * * *"}))
        Schedule(name="tidy", task="tidy", rule=rule, **said)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("* * * * *", 60), ("*/20 2 * * *", 20 * 60), ("0 * * * *", 3600), ("0,1 2 * * *", 60),
        ("0 2 * * *", 24 * 3600), ("30 1,23 * * *", 2 * 3600), ("30 1,23 * * mon", 22 * 3600),
        ("0 0 * * mon", 7 * 24 * 3600), ("0 0 1 1 *", 365 * 24 * 3600), ("0 0 29 2 *", 366 * 24 * 3600),
    ],
)  # fmt: skip
def test_how_close_the_times_of_a_line_come(line: str, seconds: int) -> None:
    """A run that waits for its share of a jitter as long as that would have the next one taken for missed."""
    assert Cron(line).shortest_gap == seconds
    if seconds <= 24 * 3600:
        with pytest.raises(ConfigurationError, match="not shorter than"):
            Schedule(name="tidy", task="tidy", rule=Cron(line), jitter=seconds)
    Schedule(name="tidy", task="tidy", rule=Cron(line), jitter=min(seconds - 1, 24 * 3600))


@pytest.mark.parametrize("bad", [("", 1), ("q", 0), ("q", -1), ("q", 1.5), ("q", True)])
def test_a_queue_below_nothing_is_refused(bad: tuple[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="QueueBelow"):
        QueueBelow(*bad)


@pytest.mark.parametrize("bad", [0, -1, 101, "x", float("nan")])
def test_processors_below_nothing_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="CpuBelow"):
        CpuBelow(bad)


def test_an_interval_is_the_same_grid_for_everyone() -> None:
    assert Every(3600).next(NOON) == NOON + timedelta(hours=1)
    assert Every(timedelta(hours=1)) == Every(3600)
    assert Every(0.25).next(NOON + timedelta(milliseconds=249)) == NOON + timedelta(milliseconds=250)
    assert Once(NOON).next(NOON) is None
