"""The work that every contender does, and the tally that counts it from outside.

Each task writes the time at which its body ran into a file. That costs some microseconds, the same for
everybody, asks nothing of any broker, and tells afterwards how many tasks ran, when each did, and whether one
ran twice. Every kind is there as a plain function and as a coroutine function: each system takes what it does
best with. They return a number, so that a system which stores no None has something to store.

This module is imported in the peers' own environments: nothing but the standard library here.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from functools import cache
from pathlib import Path

EMPTY = "empty"
SLEEPER = "sleeper"
TASKS = (EMPTY, SLEEPER)

_STAMP = struct.Struct("<d")
_SLEEP_SECONDS = 0.020


def empty() -> int:
    """Nothing but the tally."""
    return _stamp()


def sleeper() -> int:
    """Waits 20 ms for something, as most tasks do, in a thread or process of its own."""
    time.sleep(_SLEEP_SECONDS)
    return _stamp()


async def async_empty() -> int:
    """Nothing but the tally, on a loop."""
    return _stamp()


async def async_sleeper() -> int:
    """Waits 20 ms on a loop."""
    await asyncio.sleep(_SLEEP_SECONDS)
    return _stamp()


class Tally:
    """The file that the tasks write into; each process finds it by `BENCHMARK_TALLY`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()

    def count(self) -> int:
        """How many tasks are done."""
        return self.path.stat().st_size // _STAMP.size

    def times(self, start: int = 0) -> list[float]:
        """When the tasks after the first `start` were done: `time.monotonic()`, which all processes share."""
        with self.path.open("rb") as file:
            file.seek(start * _STAMP.size)
            data = file.read()
        whole = len(data) - len(data) % _STAMP.size
        return [value for (value,) in _STAMP.iter_unpack(data[:whole])]


def _stamp() -> int:
    # One short write to a file opened for appending is never mixed with another process's.
    return os.write(_tally_file(), _STAMP.pack(time.monotonic()))


@cache
def _tally_file() -> int:
    return os.open(os.environ["BENCHMARK_TALLY"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
