"""Cron lines, read within bounds, and the moments that they name in a time zone.

The fields are those of crontab(5) (POSIX.1-2017 `crontab`, Vixie cron). When the clock is set forward or
back, a line behaves as in Debian's cron:

- A line of fixed times (neither minute nor hour begins with `*`) comes once a day for each of its times. A
  time that the clock leaves out comes at the first moment after the gap; of one that the clock shows twice,
  the first counts.
- Any other line goes by what the clock shows: nothing in the gap, and all of the repeated hour.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

from errands.core.errors import ConfigurationError

_LONGEST = 200  # characters; every minute of a day, one by one, is less
# 29 February on a given day of the week: 28 years apart, and 40 over a year like 2100.
_YEARS = 41
_DAY = timedelta(days=1)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_LAST = 32  # "L" as a day of the month


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    names_from: int = 0
    letter: str = ""  # stands for `_LAST`


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31, letter="L"),
    _Field("month", 1, 12, _MONTHS, 1),
    _Field("day of week", 0, 7, _DAYS, 0),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line in a time zone.

    Args:
        line: five fields: minute, hour, day of month, month, day of week. Each is `*`, a number, a range
            `a-b`, steps (`*/n`, `a-b/n`, `a/n`: from a to the end), or a list of these. Months and days have
            English names of three letters; Sunday is 0 or 7; `L` is the last day of the month. Where neither
            of the two fields for days begins with `*`, one that fits is enough.
        tz: an IANA time zone.

    Raises:
        ConfigurationError: what is wrong with the line or the zone. It costs nothing, however it is written:
            numbers are compared before ranges are unfolded.
    """

    line: str
    tz: str = "UTC"
    _zone: ZoneInfo = field(init=False, repr=False, compare=False)
    _sets: tuple[frozenset[int], ...] = field(init=False, repr=False, compare=False)
    _any_day: bool = field(init=False, repr=False, compare=False)
    _fixed: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.line, str) or len(self.line) > _LONGEST:
            raise ConfigurationError(f"a cron line is a text of at most {_LONGEST} characters")
        fields = self.line.upper().split()
        if len(fields) != len(_FIELDS):
            raise ConfigurationError(
                f"cron line {self.line!r}: it has {len(fields)} fields, and needs five: minute, hour, day of "
                "month, month, day of week"
            )
        put = object.__setattr__
        put(self, "_zone", zone(self.tz))
        try:
            put(self, "_sets", tuple(map(_read, _FIELDS, fields)))
        except ValueError as exc:
            raise ConfigurationError(f"cron line {self.line!r}: {exc}") from exc
        put(self, "_any_day", not fields[2].startswith("*") and not fields[4].startswith("*"))
        put(self, "_fixed", not fields[0].startswith("*") and not fields[1].startswith("*"))
        if next(self._dates(date(2000, 1, 1)), None) is None:
            raise ConfigurationError(f"cron line {self.line!r}: there is no such day in any month")

    def __str__(self) -> str:
        return f"cron {' '.join(self.line.split())} {self.tz}"

    def next(self, after: datetime) -> datetime | None:
        """The first moment later than `after`, in UTC; None at the end of the calendar."""
        stamp = after.timestamp()
        found: tuple[float, date] | None = None
        # A clock that is set back over midnight shows the end of a day again, within the next one.
        for day in self._dates(after.astimezone(self._zone).date() - _DAY):
            if found is not None and day - found[1] > _DAY:
                break
            moments = _moments(self, day)
            at = bisect_right(moments, stamp)
            if at < len(moments) and (found is None or moments[at] < found[0]):
                found = moments[at], day
        return None if found is None else datetime.fromtimestamp(found[0], UTC)

    def near(self, after: datetime, moment: datetime) -> datetime:
        """As `Rule.near`."""
        return moment

    @property
    def shortest_gap(self) -> float:
        """Seconds between those two of its times that are closest, on days that have 24 hours."""
        minutes = sorted(60 * hour + minute for minute in self._sets[0] for hour in self._sets[1])
        gaps = [later - earlier for earlier, later in pairwise(minutes)]
        days = pairwise(takewhile(lambda day: day.year < 2003, self._dates(date(2001, 1, 1))))
        apart = min(((later - earlier).days for earlier, later in days), default=366)
        return 60.0 * min([*gaps, 24 * 60 * apart + minutes[0] - minutes[-1]])

    def _dates(self, start: date) -> Iterator[date]:
        """The days that fit, from `start`."""
        _, _, days, months, weekdays = self._sets
        day = start
        end = date(min(start.year + _YEARS, date.max.year - 1), 12, 31)
        while day <= end:
            if day.month not in months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            in_month = day.day in days or (_LAST in days and (day + _DAY).day == 1)
            in_week = day.isoweekday() % 7 in weekdays
            if (in_month or in_week) if self._any_day else (in_month and in_week):
                yield day
            day += _DAY


@lru_cache(maxsize=512)
def _moments(cron: Cron, day: date) -> tuple[float, ...]:
    """The moments of a line that belong to a day, as seconds since 1970, in order."""
    minutes, hours = sorted(cron._sets[0]), sorted(cron._sets[1])
    found = set()
    for hour in hours:
        for minute in minutes:
            first = datetime(day.year, day.month, day.day, hour, minute, tzinfo=cron._zone)
            stamp = first.timestamp()
            if datetime.fromtimestamp(stamp, cron._zone).replace(fold=0) != first:  # in a gap
                if cron._fixed:
                    found.add(_after_gap(first))
                continue
            found.add(stamp)
            if not cron._fixed:
                found.add(first.replace(fold=1).timestamp())
    return tuple(sorted(found))


def _after_gap(missing: datetime) -> float:
    """The first moment after the gap that `missing` lies in."""
    # Read with the offsets of before and of after the gap, the time that is not there lies on both its sides.
    after, before = missing.timestamp(), missing.replace(fold=1).timestamp()
    low, high = int(min(after, before)), int(max(after, before))
    offset = datetime.fromtimestamp(high, missing.tzinfo).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, missing.tzinfo).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return float(high)


def zone(name: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        if isinstance(name, str) and 0 < len(name) <= 64:
            return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # a folder's name, a path, a name that nobody knows
        pass
    raise ConfigurationError(f"{str(name)[:64]!r} is no time zone: write one like Europe/Berlin")


def _read(field: _Field, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        whole, slash, step_text = part.partition("/")
        step = _number(field, step_text, "step") if slash else 1
        if step == 0:
            raise ValueError(f"{field.name}: a step of 0 gets nowhere")
        start_text, dash, end_text = whole.partition("-")
        if whole == "*":
            start, end = field.first, field.last
        elif field.letter and part == field.letter:
            found.add(_LAST)
            continue
        else:
            start = _value(field, start_text)
            end = _value(field, end_text) if dash else (field.last if slash else start)
        if end < start:
            raise ValueError(f"{field.name}: {part[:20]!r} ends before it begins")
        found.update(range(start, end + 1, step))
    if field.last == 7:
        found = {value % 7 for value in found}
    return frozenset(found)


def _value(field: _Field, text: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.names_from
    value = _number(field, text, "value")
    if not field.first <= value <= field.last:
        raise ValueError(f"{field.name}: {value} is not within {field.first} and {field.last}")
    return value


def _number(field: _Field, text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise ValueError(f"{field.name}: {text[:20]!r} is no {what}")
    return int(text)
