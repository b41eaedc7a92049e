"""One job of the asyncio pool: a call of Celery's tracer, its time limits, and how it is ended from
outside.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from celery.exceptions import SoftTimeLimitExceeded

from errands.broker.answer import Answer

if TYPE_CHECKING:
    from errands.worker.pool.task_pool import TaskPool

NEVER = float("inf")


class Ended(BaseException):
    """Raised in a plain task that the pool ends: its hard time limit is over, or it was revoked.

    No `Exception`, so that a task's own `except Exception` does not take it for a failure of its work.
    """


class Job:
    """What the pool knows of one call. `green`: it runs on the event loop; else in a thread."""

    __slots__ = (
        "__weakref__", "_body", "_lock", "_thread", "abandoned", "callback", "end", "error_callback",
        "forced", "freed", "fresh_until", "gone_out", "green", "guarded", "hard", "hard_at", "killed",
        "name", "number", "on_accept", "on_timeout", "pending", "pool", "say_started", "soft", "soft_at",
        "start", "started", "task", "work",
    )  # fmt: skip

    def __init__(
        self, pool: TaskPool, number: int, work: Callable[[], Any], *, name: str, green: bool, guarded: bool
    ) -> None:
        self.pool = pool
        self.number = number
        self.work = work
        self.name = name
        self.green = green
        self.guarded = guarded  # our own steps say where the task's body begins and ends
        self.callback: Callable[[Any], Any] | None = None
        self.error_callback: Callable[[Any], Any] | None = None
        self.on_accept: Callable[[int, float], Any] | None = None
        self.on_timeout: Callable[[bool, float], Any] | None = None
        # Has the server told that the attempt starts, where that can be said before it does; its answer.
        self.say_started: Callable[[], Answer | None] | None = None
        self.start: Answer | None = None
        self.gone_out = False  # what says so
        self.fresh_until = 0.0  # by `time.monotonic`; what begins before that need not wait for the answer
        self.end: Answer | None = None  # the answer to the attempt's end, which the job waits for
        self.soft: float | None = None  # seconds
        self.hard: float | None = None
        self.soft_at = self.hard_at = NEVER
        self.started = False
        self.killed = False
        self.forced = False  # by the watchdog, while it held up the loop
        self.freed = False  # its slot was given to others although it still runs
        self.abandoned = False  # and so was its thread
        self.pending: BaseException | None = None
        self.task: asyncio.Task[None] | None = None
        self._body = False
        self._thread = 0
        self._lock = threading.Lock()

    @property
    def needs_no_leave(self) -> bool:
        """See the function of that name."""
        return self.gone_out and time.monotonic() < self.fresh_until

    # -- the body: the part that time limits are about

    def begin_body(self) -> None:
        """The limits count from here."""
        if self.green:  # whoever ends it does so on the loop, where this runs as well
            if self.killed:
                raise self._end()
            self._body, self._thread = True, threading.get_ident()
        else:
            with self._lock:
                if self.killed:
                    raise self._end()
                self._body = True
                self._thread = threading.get_ident()
        self.count_limits()

    def count_limits(self) -> None:
        """Let the limits begin now, once more if they had begun before."""
        if self.soft or self.hard:
            now = self.pool.now()
            self.soft_at = now + self.soft if self.soft else NEVER
            self.hard_at = now + self.hard if self.hard else NEVER
            self.pool.watch(self)

    def end_body(self, error: BaseException | None) -> None:
        """From here on no limit interrupts: results are stored and told whole.

        Raises:
            BaseException: the job was ended meanwhile, whatever its body made of that.
            RuntimeError: the body raised a cancellation that is none of the pool's.
        """
        interrupted: BaseException | None = None
        while True:
            try:
                with self._lock:
                    self._body = False
                    self.soft_at = self.hard_at = NEVER
                    if self.forced or not self.green:
                        _interrupt(self._thread, None)
                break
            except (SoftTimeLimitExceeded, Ended) as late:  # on its way already when the body ended
                interrupted = late
        if self.killed:
            if not isinstance(error, asyncio.CancelledError | Ended):
                raise self._end() from error
        elif isinstance(error, asyncio.CancelledError):
            raise RuntimeError(
                f"{self.name}: its code was cancelled from within (asyncio.CancelledError), not by the worker"
            ) from error
        elif interrupted is not None and error is None:
            raise interrupted

    # -- ending it from outside

    def limit(self, soft: bool) -> bool:
        """A time limit is over. True when it still found the body at work.

        Called on the event loop.
        """
        with self._lock:
            if self.killed or not self._body:
                return False
            if not soft:
                self.killed, self.pending = True, None
            if not self.green:
                _interrupt(self._thread, SoftTimeLimitExceeded if soft else Ended)
                return True
        if soft:
            self.pending = SoftTimeLimitExceeded(self.soft)
        if self.task is not None:
            self.task.cancel()
        return True

    def force(self, now: float) -> bool | None:
        """A time limit of a job that holds up the loop is over: interrupt its code, wherever that is.

        Called by the watchdog, in a thread of its own, while the job has the loop.

        Args:
            now: the loop's time.

        Returns:
            Whether it was the soft one; None when no limit is over.
        """
        with self._lock:
            if self.killed or not self._body or min(self.soft_at, self.hard_at) > now:
                return None
            soft = self.hard_at > now
            self.soft_at = NEVER
            self.forced = True
            if not soft:
                self.killed, self.hard_at = True, NEVER
            _interrupt(self._thread, SoftTimeLimitExceeded if soft else Ended)
            return soft

    def kill(self) -> None:
        """End it; what it still says is not listened to. For a job on the loop, called there."""
        with self._lock:
            if self.killed:
                return
            self.killed, self.pending = True, None
            if not self.green:
                if self._body:
                    _interrupt(self._thread, Ended)
                return
        self.press()

    def press(self) -> None:
        """Cancel it once more: it goes on though it was ended."""
        if self.task is not None and self.started:
            self.task.cancel()

    def translate(self, error: BaseException) -> BaseException:
        """What a job on the loop is to see in place of `error`, which asyncio throws in."""
        if self.pending is None or not isinstance(error, asyncio.CancelledError):
            return error
        instead, self.pending = self.pending, None
        if self.task is not None:
            self.task.uncancel()
        return instead

    def run(self) -> Any:
        """Make the call. Limits count for all of it, unless our own steps know the body better."""
        if self.guarded:
            return self.work()
        with _Body(self):
            return self.work()

    def terminate(self, signal: Any = None) -> None:
        """Celery calls this after `TaskPool.terminate_job`, which has done it."""

    def _end(self) -> BaseException:
        return asyncio.CancelledError() if self.green else Ended()


class _Body:
    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        self._job.begin_body()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._job.end_body(error)


current: ContextVar[Job | None] = ContextVar("errands_job", default=None)


def limited() -> AbstractContextManager[None]:
    """The block is a task's body: in the asyncio pool, time limits apply to it and to nothing else."""
    job = current.get()
    return nullcontext() if job is None or not job.guarded else _Body(job)


def take_start() -> Answer | None:
    """The answer to the start of the attempt at hand, where it was said before the job began; once."""
    job = current.get()
    if job is None or job.start is None:
        return None
    start, job.start = job.start, None
    return start


def needs_no_leave() -> bool:
    """Whether the attempt at hand, whose start was said, may begin before the server has answered: its
    message came in the moment of its sending (`broker/streams/moment.py`), and the word is on its way."""
    job = current.get()
    return job is not None and job.needs_no_leave


def leave_end(end: Answer) -> None:
    """The job at hand has ended when `end` is there; its code need not wait for it."""
    job = current.get()
    assert job is not None, "no job of the asyncio pool is at hand"  # noqa: S101
    job.end = end


def has_neighbours() -> bool:
    """Whether other runs may be at work in the process of the one at hand."""
    return current.get() is not None


def isolate(patience: float = 60.0) -> bool:
    """Wait until the job at hand is the only one in this worker; newcomers wait until it has ended.

    For a run that may take its worker down: its neighbours shall not go with it. Elsewhere than in the
    asyncio pool a run has its process to itself, and nothing happens.

    Args:
        patience: seconds to wait for the neighbours; then they and newcomers go on as before.

    Returns:
        Whether the job is alone now.
    """
    job = current.get()
    return True if job is None else job.pool.isolate(job, patience)


def _interrupt(thread: int, error: type[BaseException] | None) -> None:
    """Raise `error` in `thread` as soon as it runs Python code; None takes back what is still on its way."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error else None
    )
