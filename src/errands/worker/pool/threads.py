"""Threads for plain tasks. They do not hold up the end of the process, as those of `concurrent.futures`
do.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from errands.worker.pool.job import Job


class Threads:
    """Runs jobs, each in one of at most `most` threads, which are made when they are needed.

    Args:
        most: how many jobs run at a time; whoever submits keeps to it.
        run: called in the thread with each job.
        prepare: called once in each new thread.
    """

    def __init__(self, most: int, run: Callable[[Job], None], prepare: Callable[[], object]) -> None:
        self.most = most
        self.busy = 0
        self.stuck = 0  # threads that were abandoned and have not come back
        self._run = run
        self._prepare = prepare
        self._made = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    @property
    def free(self) -> bool:
        """Whether another job would begin at once."""
        return self.busy < self.most

    def submit(self, job: Job) -> None:
        """Run `job`. `done` must be called when its end is known."""
        self.busy += 1
        if self.busy > self._made:
            self._made += 1
            name = f"errands-thread-{self._made}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._jobs.put(job)

    def done(self) -> None:
        """A job has ended; its thread takes the next one."""
        self.busy -= 1

    def abandon(self, job: Job) -> None:
        """The job's thread is in code that nothing can interrupt: another one takes its place, and it ends
        when the job does. `came_back` instead of `done` must be called then."""
        job.abandoned = True
        self.busy -= 1
        self._made -= 1
        self.stuck += 1

    def came_back(self) -> None:
        """A job that was abandoned has ended after all."""
        self.stuck -= 1

    def stop(self) -> None:
        """Let the threads end when they have nothing to do."""
        for _ in range(self._made):
            self._jobs.put(None)

    def _serve(self) -> None:
        self._prepare()
        while (job := self._jobs.get()) is not None:
            self._run(job)
            if job.abandoned:
                return
