"""Cron lines: what they mean, in time zones whose clocks change, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from errands import ConfigurationError
from errands.core.cron import Cron

MINUTE = timedelta(minutes=1)
# Berlin and New York change by an hour, Lord Howe by half an hour, Casablanca twice around Ramadan, Beirut at
# midnight; Azores goes back over midnight; Apia left out a whole day.
ZONES = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Beirut",
    "Atlantic/Azores", "UTC",
)  # fmt: skip


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def seen(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    found = []
    moment = cron.next(start)
    while moment is not None and moment <= end:
        found.append(moment)
        moment = cron.next(moment)
    return found


# -- the oracle: minute by minute, what the clock on the wall shows


def fits(cron: Cron, wall: datetime) -> bool:
    minutes, hours, days, months, weekdays = cron._sets
    day, weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
    either = not any(field.startswith("*") for field in (cron.line.split()[2], cron.line.split()[4]))
    return (
        wall.minute in minutes and wall.hour in hours and wall.month in months
        and ((day or weekday) if either else (day and weekday))
    )  # fmt: skip


def oracle(cron: Cron, start: datetime, end: datetime) -> list[datetime]:
    """Due times in (`start`, `end`], found by walking through every minute that there is."""
    zone = ZoneInfo(cron.tz)
    fixed = not any(field.startswith("*") for field in cron.line.split()[:2])
    found: set[datetime] = set()
    before = (start - 400 * MINUTE).astimezone(zone)
    shown: set[datetime] = set()  # on the wall, so far
    moment = start - 399 * MINUTE
    while moment <= end:
        wall = moment.astimezone(zone)
        bare, bare_before = wall.replace(tzinfo=None, fold=0), before.replace(tzinfo=None, fold=0)
        if fixed:
            skipped = bare_before + MINUTE
            while skipped < bare:  # the clock left these out
                if fits(cron, skipped):
                    found.add(moment)
                skipped += MINUTE
            if bare not in shown and fits(cron, bare):
                found.add(moment)
        elif fits(cron, bare):
            found.add(moment)
        shown.add(bare)
        before = wall
        moment += MINUTE
    return sorted(each for each in found if each > start)


def changes(zone: ZoneInfo, year: int) -> list[date]:
    """The days around which the clock changes."""
    noons = [datetime(year, 1, 1, 12, tzinfo=zone) + timedelta(days=n) for n in range(365)]
    return [b.date() for a, b in pairwise(noons) if a.utcoffset() != b.utcoffset()]


def values(first: int, last: int) -> st.SearchStrategy[str]:
    number = st.integers(first, last)
    spans = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.integers(1, last)
    one = st.one_of(
        number.map(str),
        spans,
        st.tuples(spans, steps).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        steps.map(lambda step: f"*/{step}"),
        st.just("*"),
    )
    return st.one_of(one, st.lists(st.one_of(number.map(str), spans), min_size=1, max_size=3).map(",".join))


# Most changes are in these hours.
HOURS = st.one_of(values(0, 23), st.sampled_from(["0", "1", "2", "3", "1-3", "0-2", "23", "*"]))
LINES = st.tuples(values(0, 59), HOURS).map(lambda pair: f"{pair[0]} {pair[1]} * * *")


@settings(deadline=None)  # the walk takes its time
@given(zone=st.sampled_from(ZONES), year=st.integers(1995, 2037), line=LINES, which=st.integers(0, 3))
@example(zone="Australia/Lord_Howe", year=2026, line="0 */2 * * *", which=0)
@example(zone="Australia/Lord_Howe", year=2026, line="45 1 * * *", which=0)
@example(zone="Australia/Lord_Howe", year=2026, line="15 2 * * *", which=1)
@example(zone="Europe/Berlin", year=2026, line="30 2 * * *", which=0)
@example(zone="Europe/Berlin", year=2026, line="0,30 2,3 * * *", which=0)
@example(zone="Africa/Casablanca", year=2026, line="30 2 * * *", which=1)
@example(zone="Asia/Beirut", year=2024, line="0 0 * * *", which=0)
@example(zone="Atlantic/Azores", year=2026, line="*/15 0 * * *", which=1)
def test_on_days_when_the_clock_changes_it_does_as_the_wall_clock_says(
    zone: str, year: int, line: str, which: int
) -> None:
    days = changes(ZoneInfo(zone), year) or [date(year, 3, 29)]
    day = days[which % len(days)]
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=20)
    end = start + timedelta(hours=56)
    cron = Cron(line, zone)
    assert seen(cron, start, end) == oracle(cron, start, end)


@settings(deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(1995, 1, 1), datetime(2037, 1, 1)),
    days=values(1, 31), months=values(1, 12), weekdays=values(0, 7),
)  # fmt: skip
def test_days_are_those_of_a_calendar(
    zone: str, start: datetime, days: str, months: str, weekdays: str
) -> None:
    try:
        cron = Cron(f"17 12 {days} {months} {weekdays}", zone)
    except ConfigurationError:
        assume(False)  # 31 February
    begin = start.replace(tzinfo=UTC)
    found = seen(cron, begin, begin + timedelta(days=90))
    here = ZoneInfo(zone)
    first = begin.astimezone(here).date()
    noons = [
        datetime(day.year, day.month, day.day, 12, 17, tzinfo=here)
        for day in (first + timedelta(days=n) for n in range(92))
    ]
    wanted = [noon for noon in noons if fits(cron, noon) and begin < noon <= begin + timedelta(days=90)]
    assert found == wanted


def test_a_fixed_time_comes_once_a_day_over_many_years() -> None:
    for zone in ZONES:
        cron = Cron("30 2 * * *", zone)
        moments = seen(cron, at("2000-01-01"), at("2037-01-01"))
        days = [moment.astimezone(ZoneInfo(zone)).date() for moment in moments]
        assert len(days) == len(set(days))
        assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


def test_an_hourly_line_comes_at_every_real_hour() -> None:
    for zone in ("Europe/Berlin", "America/New_York"):
        moments = seen(Cron("0 * * * *", zone), at("2024-01-01"), at("2027-01-01"))
        assert all(later - earlier == timedelta(hours=1) for earlier, later in pairwise(moments))


def test_a_day_that_a_country_left_out() -> None:
    """Samoa went from 29 to 31 December 2011."""
    cron = Cron("0 12 * * *", "Pacific/Apia")
    walls = [m.astimezone(ZoneInfo("Pacific/Apia")) for m in seen(cron, at("2011-12-28"), at("2012-01-02"))]
    assert [(wall.day, wall.hour) for wall in walls] == [
        (28, 12),
        (29, 12),
        (31, 0),
        (31, 12),
        (1, 12),
        (2, 12),
    ]


@pytest.mark.parametrize(
    ("line", "after", "due"),
    [
        ("0 2 * * *", "2026-01-01 02:00", "2026-01-02 02:00"),
        ("*/20 * * * *", "2026-01-01 02:05", "2026-01-01 02:20"),
        ("5/20 * * * *", "2026-01-01 02:06", "2026-01-01 02:25"),
        ("0 9 * * mon-fri", "2026-01-02 09:00", "2026-01-05 09:00"),
        ("0 9 * * 0", "2026-01-01 00:00", "2026-01-04 09:00"),
        ("0 9 * * 7", "2026-01-01 00:00", "2026-01-04 09:00"),
        ("0 9 13 * fri", "2026-01-01 00:00", "2026-01-02 09:00"),  # either of the two
        ("0 9 13 * */5", "2026-01-01 00:00", "2026-02-13 09:00"),  # both: a star is there (Sunday, Friday)
        ("0 0 L * *", "2026-02-01 00:00", "2026-02-28 00:00"),
        ("0 0 L feb *", "2027-02-28 00:00", "2028-02-29 00:00"),
        ("0 0 29 2 *", "2097-01-01 00:00", "2104-02-29 00:00"),  # 2100 is no leap year
        ("0 0 29 2 */7", "2026-01-01 00:00", "2032-02-29 00:00"),
        ("59 23 31 dec *", "2026-12-31 23:59", "2027-12-31 23:59"),
    ],
)  # fmt: skip
def test_what_a_line_means(line: str, after: str, due: str) -> None:
    assert Cron(line).next(at(after)) == at(due)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1--100000000 * * * *", "minute"),
        ("0-99999999/1 * * * *", "minute"),
        ("*/0 * * * *", "step of 0"),
        ("* */0 * * *", "hour: a step of 0"),
        ("*/99999999999999 * * * *", "no step"),
        ("60 * * * *", "not within 0 and 59"),
        ("* 24 * * *", "not within 0 and 23"),
        ("* * 0 * *", "not within 1 and 31"),
        ("* * * 13 *", "not within 1 and 12"),
        ("* * * * 8", "not within 0 and 7"),
        ("5-1 * * * *", "ends before it begins"),
        ("1,,2 * * * *", "''"),
        ("² * * * *", "no value"),
        ("-1 * * * *", "no value"),
        ("* * * * * *", "6 fields"),
        ("@daily", "1 fields"),
        ("", "0 fields"),
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 2,4,6,9,11 *", "no such day"),
        (",".join(["1"] * 100_000) + " * * * *", "at most 200"),
    ],
)  # fmt: skip
def test_what_is_refused(line: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Cron(line)


@settings(deadline=None)
@given(line=st.text(alphabet="0123456789*/-,L#? JANMON", max_size=60))
def test_whatever_is_written_it_is_read_or_refused(line: str) -> None:
    try:
        cron = Cron(line)
    except ConfigurationError:
        return
    first = cron.next(at("2026-01-01"))
    assert first is not None
    assert first > at("2026-01-01")


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "../../etc/passwd", "", "Europe", "/etc/localtime", "x" * 10_000]
)
def test_zones_that_there_are_not(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no time zone"):
        Cron("0 0 * * *", name)


def test_at_the_end_of_the_calendar_nothing_follows() -> None:
    assert Cron("0 0 1 1 *").next(datetime(9998, 6, 1, tzinfo=UTC)) is None
