"""Letting one job run alone, because it may take its worker down. All of it happens on the hub's side."""

from __future__ import annotations

import concurrent.futures
from collections import deque

from errands.worker.pool.job import Job

Granted = concurrent.futures.Future[bool]


class Alone:
    """Who is to be alone, and who waits for it: one after the other."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Job, Granted]] = deque()
        self._job: Job | None = None

    @property
    def wanted(self) -> bool:
        """Whether newcomers are held: a job is alone, or waits to be."""
        return self._job is not None or bool(self._waiting)

    def ask(self, job: Job, granted: Granted) -> None:
        """`job` wants to be alone; `granted` tells it."""
        self._waiting.append((job, granted))

    def give_up(self, job: Job, granted: Granted) -> None:
        """`job` has waited long enough, and goes on among others."""
        if not granted.done():
            self._waiting = deque(waits for waits in self._waiting if waits[0] is not job)
            granted.set_result(False)

    def ended(self, job: Job) -> None:
        """`job` has ended, however."""
        if self._job is job:
            self._job = None
        self._waiting = deque(waits for waits in self._waiting if waits[0] is not job)

    def let(self, at_work: int) -> None:
        """Let the next one begin, if all `at_work` jobs do nothing but wait for this."""
        if self._job is None and self._waiting and at_work == len(self._waiting):
            self._job, granted = self._waiting.popleft()
            granted.set_result(True)
