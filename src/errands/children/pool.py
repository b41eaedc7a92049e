"""Children that serve calls, as many at a time as there are processors."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import msgspec

from errands.children.errors import CallFailed, CallRefused
from errands.children.limits import Limits
from errands.children.process import Answer, Child, Idle

_SLICE = 0.25  # seconds, as in `process`
_TRIES = 3  # with a fresh child each, where one had just ended for want of calls


class Children:
    """Child processes that make calls; one object serves all threads and event loops of its process.

    Args:
        name: begins the text of errors.
        limits: of each process.
        size: how many processes there are at the most, and so how many calls at a time; others wait for
            their turn. As many as there are processors by default.
        prepare: a function (`module:function`, without arguments) that each process calls when it starts,
            before it has limits and gives up what it may do: to load what is large, or needs more than that.
        raises: errors that a function may raise and the caller is to see as themselves, with their text.
            They are made anew from the text alone.
        environment: variables that the processes get. They do not get those of this process.
    """

    def __init__(
        self,
        name: str,
        limits: Limits | None = None,
        *,
        size: int | None = None,
        prepare: str | None = None,
        raises: tuple[type[Exception], ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.size = size or os.cpu_count() or 1
        self._prepare = prepare
        self._raises = {f"{each.__module__}.{each.__qualname__}": each for each in raises}
        self._environment = dict(environment or {})
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        self._closed = False
        self._idle: list[Child] = []
        self._busy: set[Child] = set()
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(self.size)
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix=f"children-{self.name}")

    def call(self, function: str, *arguments: Any) -> Any:
        """What `function` (`module:function`) returns for `arguments`, from a child process.

        Raises:
            CallRefused: the arguments are no plain data, or `close` was called.
            CallFailed: the function raised; those named in `raises` come as themselves.
            LimitReached: it took more memory or time than it may.
            ChildCrashed: its process ended.
            ChildError: no process could be started.
        """
        return self._run(self._prepared(function, arguments))

    async def acall(self, function: str, *arguments: Any) -> Any:
        """The same without blocking the event loop. Cancelling it kills the process at once."""
        call = self._prepared(function, arguments)
        try:
            return await asyncio.wrap_future(self._threads.submit(self._run, call))
        except BaseException:  # a cancellation, or a time limit that is raised in here
            call.cancel()
            raise

    def close(self) -> None:
        """End all children, in the middle of their calls as well; later calls are refused."""
        self._closed = True
        with self._lock:
            idle, busy = list(self._idle), list(self._busy)
            self._idle.clear()
        for child in idle:
            child.close()
        for child in busy:
            child.kill()  # whoever calls it sees that, and frees it
        self._threads.shutdown(wait=True)

    async def aclose(self) -> None:
        """The same, for event loops."""
        await asyncio.to_thread(self.close)

    def _prepared(self, function: str, arguments: tuple[Any, ...]) -> _Call:
        self._check_open()
        try:
            return _Call(function, msgspec.msgpack.encode([function, arguments]))
        except (TypeError, OverflowError) as error:
            raise CallRefused(
                f"{self.name}: the arguments of {function} are no plain data: {error}"
            ) from error

    def _run(self, call: _Call) -> Any:
        with self._turn():
            answer = self._answer(call)
        if answer.kind == "done":
            return answer.value
        kind, text, trace = answer.value
        if kind in self._raises:
            raise self._raises[kind](text)
        raise CallFailed(call.function, kind, text, trace)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # In slices: an error that is raised in this thread from outside waits for Python code to run.
        while not self._turns.acquire(timeout=_SLICE):
            self._check_open()
        try:
            yield
        finally:
            self._turns.release()

    def _answer(self, call: _Call) -> Answer:
        for _ in range(_TRIES):
            with self._child(call) as child:
                try:
                    return child.call(call.message)
                except Idle:
                    continue
        raise CallRefused(f"{self.name}: child processes end before they are called; is `idle` too short?")

    @contextmanager
    def _child(self, call: _Call) -> Iterator[Child]:
        child = self._take()
        try:
            call.begin(child)
            self._check_open()  # now that `close` would find it
            try:
                yield child
            except BaseException:
                child.kill()
                raise
        finally:
            call.leave()
            self._give_back(child)

    def _take(self) -> Child:
        with self._lock:
            for child in [each for each in self._idle if not each.alive]:
                self._idle.remove(child)
                child.close()
            # The one used last: those that are not needed come to the end of their patience.
            child = self._idle.pop() if self._idle else self._started()
            self._busy.add(child)
            return child

    def _started(self) -> Child:
        return Child(self.name, self.limits, self._prepare, self._environment)

    def _give_back(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
            keep = not self._closed and child.alive and not child.worn
            if keep:
                self._idle.append(child)
        if not keep:
            child.close()

    def _check_open(self) -> None:
        if self._closed:
            raise CallRefused(f"{self.name}: was closed")


class _Call:
    """One call, and the child that makes it at the moment."""

    def __init__(self, function: str, message: bytes) -> None:
        self.function = function
        self.message = message
        self._child: Child | None = None
        self._cancelled = False
        self._lock = threading.Lock()

    def begin(self, child: Child) -> None:
        with self._lock:
            if self._cancelled:
                raise CallRefused(f"{self.function}: was cancelled before it began")
            self._child = child

    def leave(self) -> None:
        with self._lock:
            self._child = None

    def cancel(self) -> None:
        """From any thread: end it, begun or not; nothing if it is over."""
        with self._lock:
            self._cancelled = True
            if self._child is not None:
                self._child.kill()


_pools: WeakSet[Children] = WeakSet()


def _after_fork() -> None:
    # The children are those of the process that was forked, and so are the threads that hold the locks.
    for pool in list(_pools):
        pool._begin()


os.register_at_fork(after_in_child=_after_fork)
