"""The only "now". Code asks here, so that a test can say what time it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta


class Clock:
    """Tells the time of the system."""

    def timestamp(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()


class FakeClock(Clock):
    """A clock that stands still until it is told to move. For tests."""

    def __init__(self, at: datetime | None = None) -> None:
        start = at or datetime(2026, 1, 1, 12, tzinfo=UTC)
        if start.tzinfo is None:
            raise ValueError("FakeClock needs a time with a time zone")
        self._seconds = start.timestamp()

    def timestamp(self) -> float:
        return self._seconds

    def advance(self, seconds: float | timedelta) -> None:
        """Move on by `seconds` (a number or a timedelta)."""
        self._seconds += seconds.total_seconds() if isinstance(seconds, timedelta) else seconds


_clock: Clock = Clock()


def timestamp() -> float:
    """Seconds since 1970-01-01 UTC."""
    return _clock.timestamp()


def now() -> datetime:
    """The present moment, in UTC, with its time zone."""
    return datetime.fromtimestamp(_clock.timestamp(), UTC)


def pass_time(seconds: float) -> None:
    """Let a fake clock move on by `seconds`; real time passes by itself."""
    if isinstance(_clock, FakeClock):
        _clock.advance(seconds)


@contextmanager
def use(clock: Clock) -> Iterator[Clock]:
    """Let `clock` be the clock of this process inside the block."""
    global _clock
    before, _clock = _clock, clock
    try:
        yield clock
    finally:
        _clock = before
