"""The pool as Celery sees it. Its methods are called by Celery's hub: on the event loop, beside the jobs,
where the broker's connections can wait there (`hub.py`), else in the worker's main thread.

Everything that Celery must hear of (a job begins, its limit is over, it has ended) is told by the hub too:
Celery's own state needs no locks. Jobs end on the event loop and in threads; what they have to say goes
through one deque and wakes the hub once, however much it is (`post`). The way to a loop in another thread is
the same (`Runner.start`).
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from celery import signals
from celery.concurrency.base import BasePool
from celery.utils.nodenames import gethostname

from errands.broker.batch import Batch
from errands.core import green
from errands.worker.loop import process_loop
from errands.worker.pool.alone import Alone, Granted
from errands.worker.pool.hub import HubOnLoop
from errands.worker.pool.job import Job
from errands.worker.pool.runner import Runner

logger = logging.getLogger("errands.pool")

# Plain tasks block a thread each; past some dozens the threads get in each other's way.
MOST_THREADS = 32
_TURN = 0.05  # seconds between two looks while a stopping pool waits
# The loop does nearly all there is to do; the threads beside it (heartbeat, upkeep) need little. What they
# are at must not hold a task up for the 5 ms after which Python lets others have a turn.
_SWITCH = 0.001  # seconds


class TaskPool(BasePool):
    """Runs `async def` tasks on one event loop, each with Celery's own tracer, and plain tasks in threads."""

    called = "asyncio"
    signal_safe = False
    uses_semaphore = True
    body_can_be_buffer = True
    takes_decoded = True  # bodies need not be decoded twice: see `errands.worker.request`
    forgets = True  # what has not begun can be taken back: see `flush`
    stop_worker: Callable[[int], object] | None = None  # ends the worker in order, with that exit status

    def __init__(
        self, limit: int | None = None, *args: Any, semaphore: Any = None, initargs: Any = (), **kwargs: Any
    ) -> None:
        super().__init__(limit, *args, **kwargs)
        self.limit = limit or 1
        self._semaphore = semaphore
        self._hostname = initargs[1] if len(initargs) > 1 else gethostname()
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}  # those that have begun
        self._waiting: deque[Job] = deque()
        self._slots = 0  # in use
        self._alone = Alone()
        self._posted: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._woken = False
        self._hub: Any = None
        self._lock = threading.RLock()
        self._news = threading.Event()
        self._runner: Runner | None = None
        self._stopped = False
        self._on_loop: HubOnLoop | None = None
        self._batch: Batch | None = None
        self._hurried = False
        self._tasks: Any = {}

    # -- life

    def on_start(self) -> None:
        """Start the loop; what prefork's children do when they begin, this process does now."""
        self.app.set_current()
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH))
        self._tasks = self.app.tasks
        if self.app.conf.broker_pool_limit is not None:
            # Tasks step aside while they hold a connection; to wait for one would block the loop.
            self.app.conf.broker_pool_limit = max(self.app.conf.broker_pool_limit, 2 * self.limit)
        most = getattr(getattr(self.app, "settings", None), "threads", MOST_THREADS)
        self._runner = Runner(self, process_loop().loop, min(self.limit, most), self.app.set_current)
        live_runs = getattr(self.app, "_live_runs", None)  # a plain Celery app has none
        if live_runs is not None:
            self._batch = live_runs.batch_on(self._runner.loop)
        self._on_loop = HubOnLoop(
            self._runner.loop, before=self.flush_batch, stand_in=self.listen, late=lambda: self.runner.late
        )
        self.app.loader.init_worker_process()
        signals.worker_process_init.send(sender=self._hostname)

    def register_with_event_loop(self, hub: Any) -> None:
        """Celery calls this after each connection to the broker."""
        self._hub = hub
        self._wake()

    def run_hub(self, hub: Any, function: Callable[[], Any], held_up: Callable[[], object]) -> Any:
        """Run `function`, Celery's consumer loop on `hub`, on the event loop: see `HubOnLoop.run`."""
        assert self._on_loop is not None, "the asyncio pool is not started"  # noqa: S101
        return self._on_loop.run(hub, function, held_up)

    def on_stop(self) -> None:
        """Wait for the jobs that have begun, then close what the process keeps open.

        Called twice when a worker is told to hurry.
        """
        if self._stopped or self._runner is None:
            return
        self._stopped = True
        self.flush()
        self._runner.wake()  # a job may wait for the end of a turn that the hub did not come to
        while any(not job.freed for job in self._jobs.values()):
            self._news.wait(_TURN)
            self.listen()
            if self._hub is not None:
                self._hub.fire_timers()  # the broker wants heartbeats meanwhile
        self.listen()
        signals.worker_process_shutdown.send(sender=self._hostname, pid=os.getpid(), exitcode=0)
        self._runner.stop()
        if self._batch is not None:
            process_loop().run(self._batch.drain())
            self.app._live_runs.unbatch()
        if self._on_loop is not None:
            self._on_loop.close()

    def on_terminate(self) -> None:
        """End the jobs that have begun."""
        for job in list(self._jobs.values()):
            self.terminate_job(job.number)
        self.on_stop()

    def give_up(self) -> None:
        """End this process, whose loop nobody gets back. From any thread.

        It ends in the hub's thread, after what that has to record of it.
        """
        self.post(os._exit, os.EX_SOFTWARE)

    def flush(self) -> None:
        """Forget the jobs that have not begun: their messages are other workers' from now on."""
        with self._lock:
            self._waiting.clear()

    # -- jobs

    def on_apply(
        self, target: Any, args: Any, kwargs: Any, *, callback: Any = None, error_callback: Any = None,
        accept_callback: Any = None, timeout_callback: Any = None, soft_timeout: float | None = None,
        timeout: float | None = None, say_started: Callable[[], Any] | None = None,
        fresh_until: float = 0.0, **_: Any,
    ) -> Job:  # fmt: skip
        """Run `target`, now or when there is room. `say_started`, `fresh_until`: see `Job`."""
        task = self._tasks.get(args[0]) if args else None
        job = Job(
            self, next(self._numbers), partial(target, *args, **kwargs),
            name=f"{args[0]}[{args[1]}]" if len(args) > 1 else repr(target),
            green=getattr(task, "is_async", False), guarded=getattr(task, "function", None) is not None,
        )  # fmt: skip
        job.callback, job.error_callback = callback, error_callback
        job.say_started = say_started if self._batch is not None else None
        job.fresh_until = fresh_until
        job.on_accept, job.on_timeout = accept_callback, timeout_callback
        job.soft = soft_timeout or self.options.get("soft_timeout")
        job.hard = timeout or self.options.get("timeout")
        with self._lock:
            if self._waiting or not self._has_room(job):
                self._waiting.append(job)
                self._begin_waiting()
            else:
                self._begin(job)
        return job

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """End the job number `pid`; Celery learned the number when it was accepted."""
        job = self._jobs.get(pid)
        if job is not None:
            self.runner.kill(job)

    @property
    def runner(self) -> Runner:
        """The loop and the threads."""
        assert self._runner is not None, "the asyncio pool is not started"  # noqa: S101
        return self._runner

    def _has_room(self, job: Job) -> bool:
        if self._slots >= self.limit or self._alone.wanted:
            return False
        return job.green or self.runner.threads.free

    def _begin(self, job: Job) -> None:
        self._slots += 1
        self._jobs[job.number] = job
        if job.on_accept is not None:
            job.on_accept(job.number, monotonic())  # it may have been revoked meanwhile
        if job.killed:
            self.ended(job, None, None)
        else:
            self.runner.start(job)

    def _begin_waiting(self) -> None:
        """Begin what there is room for, in order; plain jobs that find no thread let others pass."""
        passed: list[Job] = []
        while self._waiting and self._slots < self.limit and not self._alone.wanted:
            job = self._waiting.popleft()
            if self._has_room(job):
                self._begin(job)
            else:
                passed.append(job)
        self._waiting.extendleft(reversed(passed))

    def ended(self, job: Job, tell: Callable[[Any], Any] | None, outcome: Any) -> None:
        """A job has ended. `tell` is its callback for `outcome`, None if nobody is to hear of it."""
        self._jobs.pop(job.number, None)
        if job.abandoned:
            self.runner.threads.came_back()
        elif not job.green and job.started:
            self.runner.threads.done()
        try:
            if tell is not None:
                tell(outcome)
        finally:
            self.free(job)
            self._alone.ended(job)
            self._alone.let(self._slots)
            self._begin_waiting()

    def free(self, job: Job) -> None:
        """Give the job's slot to others."""
        if not job.freed:
            job.freed = True
            self._slots -= 1
            if self._semaphore is not None:
                self._semaphore.release()

    def abandon(self, job: Job) -> None:
        """Nothing can interrupt the job: its slot, and its thread's place, go to others.

        A worker with `MOST_THREADS` of them ends, in order: they cost memory, and do what nobody wants.
        """
        if job.freed or job.number not in self._jobs:
            return
        self.free(job)
        if not job.green:
            threads = self.runner.threads
            threads.abandon(job)
            if threads.stuck >= MOST_THREADS:
                self._end_worker(f"{threads.stuck} of its threads are in code that cannot be interrupted")
        self._begin_waiting()

    def _end_worker(self, why: str) -> None:
        logger.critical("%s: this worker ends, and whoever starts workers starts another one", why)
        if self.stop_worker is not None:
            self.stop_worker(os.EX_SOFTWARE)
        else:
            self.give_up()

    # -- alone

    def isolate(self, job: Job, patience: float) -> bool:
        """See `errands.worker.pool.job.isolate`, which calls this from within the job."""
        granted: Granted = Granted()
        self.post(self._want_alone, job, granted, patience)
        alone = green.wait(self.runner.wrap(granted)) if green.in_green() else granted.result()
        job.count_limits()  # its waiting is not held against it
        return alone

    def _want_alone(self, job: Job, granted: Granted, patience: float) -> None:
        self._alone.ask(job, granted)
        self.runner.later(patience, self._give_up_alone, job, granted)
        self._alone.let(self._slots)

    def _give_up_alone(self, job: Job, granted: Granted) -> None:
        self._alone.give_up(job, granted)
        self._begin_waiting()

    # -- from the loop and the threads to the hub

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """From any thread: call `function` where Celery's own code runs."""
        self._posted.append((function, args))
        if self._woken:
            return
        self._woken = True
        if self._runner is not None and self._runner.here:
            if self._on_loop is not None and self._on_loop.runs:
                self._wake()
                return
            # At the end of this turn of the loop, with what else ends in it: waking the hub for each job
            # would cost more than the job.
            self._runner.loop.call_soon(self._wake)
        else:
            self._wake()

    def at_end_of_turn(self, function: Callable[[], object]) -> None:
        """From the hub: call `function` when the hub has done what it is at, once for all that it starts."""
        if self._hub is None or self._stopped:
            function()
        else:
            self._hub.call_soon(function)

    def _wake(self) -> None:
        self._news.set()
        if self._hub is not None:
            self._hub.call_soon(self.listen)
            if self._on_loop is not None and self.runner.here:
                self._on_loop.wake()
        elif self._semaphore is None:  # a worker without a hub: its broker's transport knows none
            self.listen()

    def flush_batch(self) -> bool:
        """As the hub on the loop: have the server told what was collected. Whether all of it has gone out."""
        return self._batch is not None and self._batch.flush()

    def let_begin(self) -> None:
        """As the hub, when it has handed over a message: let its job begin at once, if it is hurried."""
        if self._hurried and self._on_loop is not None:
            self._hurried = False
            self._on_loop.give_turn()

    def hurry(self) -> None:
        """From the hub: what has begun need not wait for anything."""
        self._hurried = True

    def listen(self) -> None:
        """As the hub: do what was posted."""
        self._news.clear()
        self._woken = False
        with self._lock:
            while self._posted:
                function, args = self._posted.popleft()
                try:
                    function(*args)
                except Exception:  # what the others have to say must be heard
                    logger.exception("the pool could not take note of what a task did")

    # -- limits, size, facts

    def now(self) -> float:
        """The loop's clock."""
        return self.runner.loop.time()

    def watch(self, job: Job) -> None:
        """The job's deadlines are set."""
        self.runner.deadlines.watch(job)

    def grow(self, n: int = 1) -> None:
        """Let `n` more jobs run at a time."""
        self.limit += n
        if self._semaphore is not None:
            self._semaphore.grow(n)

    def shrink(self, n: int = 1) -> None:
        """Let `n` fewer jobs run at a time; none that runs is ended."""
        self.limit = max(1, self.limit - n)
        if self._semaphore is not None:
            self._semaphore.shrink(n)

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        threads = self._runner.threads if self._runner else None
        return {
            **info,
            "processes": [os.getpid()],  # as prefork tells its own: who watches it, and tests of Celery, ask
            "running": len(self._jobs),
            "waiting": len(self._waiting),
            "threads": {"busy": threads.busy, "most": threads.most} if threads else {},
            "timeouts": (self.options.get("soft_timeout") or 0, self.options.get("timeout") or 0),
        }  # fmt: skip
