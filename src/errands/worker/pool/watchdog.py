"""Tells when a task holds up the event loop, where all others wait for it, and sees to its time limits."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

logger = logging.getLogger("errands.pool")

INTERVAL = 0.5  # seconds
TOO_LONG = 1.0
_MOST_NAMES = 5


class Watchdog:
    """A thread that looks whether the loop still turns, and warns once for each time that it does not.

    Args:
        loop: runs already.
        names: what runs on it.
        held_up: called again and again while a task has the loop, with that task: no timer of the loop's own
            comes due then.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, names: Callable[[], list[str]],
        held_up: Callable[[asyncio.Task[Any]], object],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._names = names
        self._held_up = held_up
        self._stop = threading.Event()
        self._turned_at = monotonic()
        self._loop_thread = 0
        self._warned = False
        self.longest = 0.0

    def start(self) -> None:
        """Watch from now on."""
        self._loop.call_soon_threadsafe(self._turn)
        threading.Thread(target=self._watch, name="errands-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    @property
    def late(self) -> float:
        """Seconds since the loop was last seen to turn."""
        return monotonic() - self._turned_at

    def _turn(self) -> None:
        self._loop_thread = threading.get_ident()
        now = monotonic()
        late = now - self._turned_at
        self.longest = max(self.longest, late - INTERVAL)
        if self._warned:
            logger.warning("the event loop turns again after %.1f s", late)
            self._warned = False
        self._turned_at = now
        if not self._stop.is_set():
            self._loop.call_later(INTERVAL, self._turn)

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            late = self.late
            if late > TOO_LONG + INTERVAL and not self._warned:
                self._warned = True
                logger.warning(
                    "the event loop has not turned for %.1f s: %s. Blocking calls belong in a plain task or "
                    "behind `await asyncio.to_thread(…)`. On the loop: %s",
                    late, self._where(), self._who(),
                )  # fmt: skip
            task = asyncio.current_task(self._loop) if late > TOO_LONG else None
            if task is not None:
                self._held_up(task)

    def _where(self) -> str:
        task = asyncio.current_task(self._loop)
        name = task.get_name() if task is not None else "a callback"
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return f"{name} holds it"
        code = frame.f_code
        return f"{name} holds it in {code.co_name} ({code.co_filename}:{frame.f_lineno})"

    def _who(self) -> str:
        names = self._names()
        rest = len(names) - _MOST_NAMES
        return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
