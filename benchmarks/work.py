"""The work that every contender does, and the tally that counts it from outside.

Each task writes the time at which it is done into a file. That costs some microseconds, the same for
everybody, asks nothing of any broker, and tells afterwards how many tasks ran, when each did, and whether one
ran twice.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_STAMP = struct.Struct("<d")
_SLEEP_SECONDS = 0.020


@dataclass(frozen=True)
class Workload:
    """One kind of task.

    Attributes:
        name: of the task, for every contender.
        label: for people.
        args: what each task is sent.
        share: of the tasks asked for; slow tasks need fewer for a figure as steady.
    """

    name: str
    label: str
    args: Sequence[object] = ()
    share: float = 1.0

    def count(self, tasks: int) -> int:
        """How many tasks of this kind are sent where `tasks` are asked for."""
        return max(20, round(tasks * self.share))


EMPTY = Workload("empty", "empty task")
ARGUMENTS = Workload("arguments", "three typed arguments", (42, "ann@example.com", "Ann Example"))
SLEEPER = Workload("sleeper", "waits 20 ms", share=0.1)
WORKLOADS = {work.name: work for work in (EMPTY, ARGUMENTS, SLEEPER)}


def empty() -> None:
    """Nothing but the tally."""
    _stamp()


def arguments(user_id: int, email: str, name: str) -> None:
    """Nothing either, but what it is sent has to be carried and, where that is done, checked."""
    _stamp()


def sleeper() -> None:
    """Waits for something, as most tasks do."""
    time.sleep(_SLEEP_SECONDS)
    _stamp()


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


def _stamp() -> None:
    # One short write to a file opened for appending is never mixed with another process's.
    os.write(_tally_file(), _STAMP.pack(time.monotonic()))


@cache
def _tally_file() -> int:
    return os.open(os.environ["BENCHMARK_TALLY"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
