"""Quiet hours, by the clock of a place."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from errands import ConfigurationError
from errands.kits.push import QuietHours

BERLIN = QuietHours("22:00-07:00", "Europe/Berlin")


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        ("2026-01-10T20:59:59", None),
        ("2026-01-10T21:00:00", "2026-01-11T06:00:00"),  # 22:00 in winter
        ("2026-01-11T05:59:59", "2026-01-11T06:00:00"),
        ("2026-01-11T06:00:00", None),
        ("2026-07-10T19:59:00", None),
        ("2026-07-10T20:00:00", "2026-07-11T05:00:00"),  # 22:00 in summer
        # The night in which the clock is set forward has eight hours, the other one ten.
        ("2026-03-28T21:00:00", "2026-03-29T05:00:00"),
        ("2026-10-24T20:00:00", "2026-10-25T06:00:00"),
    ],
)
def test_a_night_in_berlin(moment, end):
    assert BERLIN.end(at(moment)) == (at(end) if end else None)


def test_hours_within_a_day():
    siesta = QuietHours("13:30 - 15:00", "America/New_York")
    assert siesta.end(at("2026-06-01T17:29:00")) is None
    assert siesta.end(at("2026-06-01T17:30:00")) == at("2026-06-01T19:00:00")
    assert siesta.end(at("2026-06-01T19:00:00")) is None


def test_an_end_that_the_clock_leaves_out_comes_after_the_gap():
    hours = QuietHours("22:00-02:30", "Europe/Berlin")  # on 29 March 2026, 02:00 is followed by 03:00
    assert hours.end(at("2026-03-29T00:59:59")) == at("2026-03-29T01:00:00")
    assert hours.end(at("2026-03-29T01:00:00")) is None


def test_of_an_end_that_comes_twice_the_first_counts():
    hours = QuietHours("22:00-02:30", "Europe/Berlin")  # on 25 October 2026, 02:00 to 03:00 comes twice
    assert hours.end(at("2026-10-24T23:00:00")) == at("2026-10-25T00:30:00")
    assert hours.end(at("2026-10-25T01:15:00")) is None  # 02:15 again


def test_a_beginning_that_the_clock_leaves_out_is_after_the_gap():
    hours = QuietHours("02:30-05:00", "Europe/Berlin")
    assert hours.end(at("2026-03-29T00:59:00")) is None
    assert hours.end(at("2026-03-29T01:00:00")) == at("2026-03-29T03:00:00")


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"]
)
@pytest.mark.parametrize("hours", ["22:00-07:00", "00:00-06:30", "01:45-02:15", "13:00-12:59"])
def test_an_end_is_near_and_is_really_one(zone, hours):
    """Over two years, whatever the clock does: at the end it is not quiet, a moment before it still is."""
    quiet = QuietHours(hours, zone)
    moment = at("2026-01-01T00:07:00")
    seen = 0
    while moment < at("2028-01-01T00:00:00"):
        end = quiet.end(moment)
        if end is not None:
            seen += 1
            assert moment < end <= moment + timedelta(hours=26)
            assert quiet.end(end - timedelta(seconds=1)) == end
            ends = datetime.strptime(hours.partition("-")[2], "%H:%M").time()
            shown = end.astimezone(ZoneInfo(zone)).time()
            assert shown == ends or _is_gap(end, zone)
        moment += timedelta(hours=5, minutes=11)
    assert seen


def _is_gap(moment, zone):
    place = ZoneInfo(zone)
    before = (moment - timedelta(seconds=1)).astimezone(place).utcoffset()
    return moment.astimezone(place).utcoffset() > before


@pytest.mark.parametrize(
    "hours",
    ["", "22-7", "22:00", "24:00-07:00", "22:60-07:00", "22:00-22:00", "09:00-9:00", "x", "1:00-2:00-3:00"],
)
def test_hours_that_are_none_are_refused(hours):
    with pytest.raises(ConfigurationError, match="quiet hours"):
        QuietHours(hours)


def test_a_zone_that_is_none_is_refused():
    with pytest.raises(ConfigurationError, match="time zone"):
        QuietHours("22:00-07:00", "Berlin")
