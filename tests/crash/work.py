"""What the tasks do, the same in each system. All of it is written into the history."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.crash.history import History, What
from tests.crash.points import Point, Points

HOME = Path(os.environ.get("CRASH_HOME", "/nonexistent"))
NAME = os.environ.get("CRASH_NAME", socket.gethostname())
QUEUE = "work"
POISON = "poison"  # a queue that a worker can be kept away from
SPARED = "CRASH_SPARED" in os.environ  # a worker that does not die at fault points
TICK_SECONDS = float(os.environ.get("CRASH_TICK", "0"))  # of the schedule; 0 for none
VERSION = int(os.environ.get("CRASH_VERSION", "1"))  # of the application: the second renames a task

_history: History | None = None
_BLOCK = 16 * 2**20
_ROOM = 256 * 2**20
_memory = threading.Lock()  # the limit is the whole process's


def history() -> History:
    """The history of the system that this process belongs to."""
    global _history
    if _history is None:
        _history = History(HOME)
    return _history


def points() -> Points:
    """The fault points of the system that this process belongs to."""
    return Points(HOME)


def watch_points() -> None:
    """Let this process die at the points that are outside of tasks."""
    if not SPARED:
        points().watch_replies()
        points().watch_received()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a run, as its task's body sees it."""

    run: str
    key: str
    number: int
    task: str = "mark"

    def write(self, what: What, **details: object) -> None:
        history().write(
            what, run=self.run, key=self.key, attempt=self.number, task=self.task, worker=NAME, **details
        )

    def begin(self) -> None:
        self.write(What.BEGUN)

    def finish(self) -> None:
        """Have the effect that must not be repeated, and the one that may be."""
        history().once(self.key)
        self.write(What.EFFECT)
        if not SPARED:
            points().pass_by(Point.EFFECT)
        self.write(What.ENDED)

    def mark(self, seconds: float) -> None:
        """Begin, work for a while, have the effect."""
        self.begin()
        time.sleep(seconds)
        self.finish()

    async def mark_async(self, seconds: float) -> None:
        """`mark` on an event loop."""
        self.begin()
        await asyncio.sleep(seconds)
        self.finish()

    def stumble(self, gate: str) -> None:
        """Fail the first time, once the file `gate` is there."""
        self.begin()
        first = history().once(f"{self.key}-first")
        while not Path(gate).exists():
            time.sleep(0.05)
        if first:
            raise ConnectionError("stumbled")
        self.finish()

    def poison(self, kind: str) -> None:
        """Take the process down, each time: by `exit`, `segfault` or `memory`."""
        self.begin()
        if kind == "memory":
            self._use_up_memory()
        history().write(What.KILLED, note=f"poison: {kind}")
        if kind == "segfault":
            ctypes.string_at(0)
        os._exit(3)

    def _use_up_memory(self) -> None:
        """Ask for more than the process may have. An interpreter that survives that has an error to tell."""
        with _memory:
            self._use_up()

    def _use_up(self) -> None:
        before = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, before[1]))
        hoard = []
        try:
            while True:
                hoard.append(bytearray(_BLOCK))
        except MemoryError:
            hoard.clear()
            self.write(What.RAISED, note="MemoryError")
            raise
        finally:
            hoard.clear()
            resource.setrlimit(resource.RLIMIT_AS, before)
