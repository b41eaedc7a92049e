"""Quiet hours: the part of the day in which devices are left alone."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from errands import ConfigurationError
from errands.core.cron import Cron

_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one time of the day to another, by the clock of a place.

    >>> QuietHours("22:00-07:00", "Europe/Berlin").end(datetime.fromisoformat("2026-07-01T21:30:00+00:00"))
    datetime.datetime(2026, 7, 2, 5, 0, tzinfo=datetime.timezone.utc)

    On the day on which the clock jumps, a time that it leaves out comes at the first moment after the jump;
    of one that it shows twice, the first counts.

    Args:
        hours: "22:00-07:00"; over midnight or not.
        zone: "Europe/Berlin".

    Raises:
        ConfigurationError: they are written otherwise, or there is no such zone.
    """

    hours: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        _times(self.hours, self.zone)

    def end(self, moment: datetime) -> datetime | None:
        """When the quiet hours that `moment` lies in are over, in UTC; None if it lies in none."""
        begins, ends = _times(self.hours, self.zone)
        over, again = ends.next(moment), begins.next(moment)
        # Every day has both; whichever comes first tells in which part of the day we are.
        return over if over is not None and (again is None or over < again) else None


@lru_cache(maxsize=256)
def _times(hours: str, zone: str) -> tuple[Cron, Cron]:
    match = _HOURS.fullmatch(hours.strip())
    begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups()) if match else (0, 0, 0, 0)
    if (begin_hour, begin_minute) == (end_hour, end_minute):
        raise ConfigurationError(
            f"quiet hours {hours[:40]!r}: write two times of the day that differ, as in 22:00-07:00"
        )
    return (
        Cron(f"{begin_minute} {begin_hour} * * *", zone),
        Cron(f"{end_minute} {end_hour} * * *", zone),
    )


# Asked for those of some users who have quiet hours of their own: None for a user who wants none. Who is not
# in the answer has those of the installation.
QuietHoursOf = Callable[[Sequence[str]], Awaitable[Mapping[str, QuietHours | None]]]
