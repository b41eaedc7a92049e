"""Where jobs run: the event loop in its own thread, and threads for plain tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError

from errands.core.green import Spawn
from errands.worker.pool.job import Ended, Job, current
from errands.worker.pool.limits import Deadlines
from errands.worker.pool.threads import Threads
from errands.worker.pool.watchdog import Watchdog

if TYPE_CHECKING:
    from errands.worker.pool.task_pool import TaskPool

logger = logging.getLogger("errands.pool")

# What is ended may clean up for so long; then it is cancelled once more, and its slot goes to others.
GRACE = 2.0  # seconds


class Runner:
    """Runs jobs and tells the pool how they ended.

    Args:
        pool: told of each end, by `post`, in Celery's own thread.
        loop: runs already, in a thread of its own.
        threads: how many plain jobs run at a time.
        prepare: called in each thread, and on the loop, before the first job.
    """

    def __init__(
        self, pool: TaskPool, loop: asyncio.AbstractEventLoop, threads: int, prepare: Callable[[], object]
    ) -> None:
        self.loop = loop
        self.deadlines = Deadlines(loop, self._due)
        self.threads = Threads(threads, self._run_in_thread, prepare)
        self._pool = pool
        self._context = copy_context()  # each job begins with what is set now
        self._inbox: deque[Job] = deque()
        self._woken = False
        self._running: set[Job] = set()
        self._watchdog = Watchdog(loop, self.names, self._held_up)
        self._ident = 0
        self._forced_at = 0.0
        loop.call_soon_threadsafe(self._prepare, prepare)
        self._watchdog.start()

    def names(self) -> list[str]:
        """The jobs on the loop, by the names and ids of their tasks."""
        return [job.name for job in list(self._running)]

    def start(self, job: Job) -> None:
        """From the hub: run `job`."""
        if not job.green:
            job.started = True
            self.threads.submit(job)
            return
        if self.here:  # the hub is on the loop
            self._start_here(job)
            return
        self._inbox.append(job)
        if not self._woken:
            self._woken = True
            if self._running:
                self._pool.at_end_of_turn(self.wake)
            else:  # an idle loop is woken at once
                self.wake()

    def kill(self, job: Job) -> None:
        """From the hub: end `job`."""
        if job.green:
            self.loop.call_soon_threadsafe(self._kill, job)
        else:
            job.kill()
            self.loop.call_soon_threadsafe(self._press_later, job)

    def later(self, seconds: float, function: Callable[..., Any], *args: Any) -> None:
        """From the hub: have `function` called there after `seconds`."""
        post = self._pool.post
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, post, function, *args)

    def wrap(self, future: concurrent.futures.Future[bool]) -> asyncio.Future[bool]:
        """A future of threads as one of this loop."""
        return asyncio.wrap_future(future, loop=self.loop)

    @property
    def late(self) -> float:
        """Seconds since the loop was last seen to turn."""
        return self._watchdog.late

    def stop(self) -> None:
        """End the threads and the watchdog. The loop belongs to the process."""
        self._watchdog.stop()
        self.threads.stop()

    @property
    def here(self) -> bool:
        """Whether the calling code runs on the loop."""
        return threading.get_ident() == self._ident

    def wake(self) -> None:
        """From the hub: let the loop begin what `start` was given."""
        self.loop.call_soon_threadsafe(self._start_all)

    # -- on the loop

    def _prepare(self, prepare: Callable[[], object]) -> None:
        self._ident = threading.get_ident()
        prepare()

    def _start_all(self) -> None:
        self._woken = False
        while self._inbox:
            self._begin(self._inbox.popleft())

    def _start_here(self, job: Job) -> None:
        """Say that the attempt starts, and begin it: at once where nothing else is to do, so that both are
        under way at a time; else when the server has answered, which saves a wait."""
        start = job.start = job.say_started() if job.say_started is not None else None
        if start is None:
            self._begin(job)
        elif not self._running:
            self._begin(job)
            job.gone_out = self._pool.flush_batch()
            if job.needs_no_leave:
                self._pool.hurry()
        else:
            self._running.add(job)
            start.then(partial(self._begin_started, job))

    def _begin_started(self, job: Job) -> None:
        if job.task is None and job in self._running:  # else it was ended meanwhile
            self._begin(job)

    def _begin(self, job: Job) -> None:
        job.task = self.loop.create_task(self._run(job), name=job.name, context=self._context_of(job))
        self._running.add(job)

    async def _run(self, job: Job) -> None:
        job.started = True
        tell: Callable[[Any], Any] | None = None
        outcome: Any = None
        try:
            if not job.killed:
                outcome = await Spawn(job.run, job.translate)
                tell = job.callback
        except BaseException as error:  # noqa: BLE001 — even SystemExit ends this job and not its neighbours
            if not job.killed:
                tell, outcome = job.error_callback, _describe(error)
        finally:
            if job.end is None:
                self._over(job, tell, outcome)
            else:
                job.end.then(partial(self._over, job, tell, outcome))

    def _kill(self, job: Job) -> None:
        job.kill()
        if job.task is None and job in self._running:  # it waits for the word that it may start
            self._begin(job)
        self._press_later(job)

    def _press_later(self, job: Job) -> None:
        self.loop.call_later(GRACE, self._press, job)

    def _press(self, job: Job) -> None:
        if job.number not in self._pool._jobs:
            return
        if not job.freed:
            way = "goes on though it was cancelled" if job.green else "is in code that cannot be interrupted"
            logger.warning("%s %s; what it still does is not listened to", job.name, way)
            self._pool.post(self._pool.abandon, job)
        if job.green:
            job.press()
            self._press_later(job)

    def _due(self, job: Job, soft: bool) -> None:
        if not job.limit(soft):
            return
        if job.on_timeout is not None:
            self._pool.post(job.on_timeout, soft, job.soft if soft else job.hard)
        if not soft:
            self._press_later(job)

    def _held_up(self, task: asyncio.Task[Any]) -> None:
        """From the watchdog: `task` has had the loop for a while, so that no timer could come due."""
        job = next((job for job in list(self._running) if job.task is task), None)
        if job is None:  # a task that a job has started; the job itself is not at fault, and not known
            return
        now = self.loop.time()
        soft = job.force(now)
        if soft is not None:
            self._forced_at = now
            if job.on_timeout is not None:
                self._pool.post(job.on_timeout, soft, job.soft if soft else job.hard)
        elif job.killed and now - self._forced_at > GRACE:
            logger.critical(
                "%s is over its time limit, in code that cannot be interrupted, and holds up all others: "
                "this worker ends, and what else runs in it is given to others", job.name,
            )  # fmt: skip
            self._pool.give_up()

    # -- in a thread

    def _run_in_thread(self, job: Job) -> None:
        tell: Callable[[Any], Any] | None = None
        outcome: Any = None
        try:
            if not job.killed:
                outcome = self._context_of(job).run(job.run)
                tell = job.callback
        except BaseException as error:  # noqa: BLE001 — as above
            if not job.killed and not isinstance(error, Ended):
                tell, outcome = job.error_callback, _describe(error)
        if job.killed:
            tell = None
        self._over(job, tell, outcome)

    # -- both

    def _context_of(self, job: Job) -> Context:
        context = self._context.copy()
        context.run(current.set, job)
        return context

    def _over(self, job: Job, tell: Callable[[Any], Any] | None, outcome: Any) -> None:
        self.deadlines.forget(job)
        self._running.discard(job)
        job.task = None
        self._pool.post(self._pool.ended, job, None if job.killed else tell, outcome)


def _describe(error: BaseException) -> Any:
    """An error that came out of Celery's tracer, as Celery wants to be told."""
    if isinstance(error, Exception) and not isinstance(error, MemoryError):
        return ExceptionInfo()
    # `sys.exit` in a task: in a pool of processes the child would be gone, and so the run is told lost.
    try:
        raise WorkerLostError(f"the task ended its process: {error!r}") from error
    except WorkerLostError:
        return ExceptionInfo()
