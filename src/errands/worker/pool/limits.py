"""Time limits of many jobs with one timer: most of them never come due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from errands.worker.pool.job import NEVER, Job


class Deadlines:
    """Watches the deadlines of jobs, and calls `due(job, soft)` on the event loop when one has passed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[Job, bool], None]) -> None:
        self._loop = loop
        self._due = due
        self._jobs: set[Job] = set()
        self._next = NEVER
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, job: Job) -> None:
        """From any thread: the job's deadlines are set."""
        self._jobs.add(job)
        nearest = min(job.soft_at, job.hard_at)
        if nearest < self._next:
            # Nobody looks for a nearer one until then: jobs that end in time cost no timer of their own.
            self._next = nearest
            self._loop.call_soon_threadsafe(self._set_timer)

    def forget(self, job: Job) -> None:
        """From any thread: the job has ended."""
        self._jobs.discard(job)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._next == NEVER else self._loop.call_at(self._next, self._tick)

    def _tick(self) -> None:
        now = self._loop.time()
        self._next = NEVER  # before the look: what is watched meanwhile sets a timer of its own
        for job in list(self._jobs):
            if job.hard_at <= now:
                job.soft_at = job.hard_at = NEVER
                self._due(job, False)
            elif job.soft_at <= now:
                job.soft_at = NEVER
                self._due(job, True)
        left = min((min(job.soft_at, job.hard_at) for job in list(self._jobs)), default=NEVER)
        self._next = min(self._next, left)
        self._set_timer()
