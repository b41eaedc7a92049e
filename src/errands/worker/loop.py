"""One event loop per process, in a thread of its own, for `async def` tasks in whatever pool.

A loop for each task would tear down connection pools with it; one loop keeps them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

T = TypeVar("T")


class _Interruptible:
    """Awaits a coroutine into which another thread may throw an exception.

    asyncio knows only cancellation; a soft time limit must arrive as itself, so that a task can catch it
    and end with a partial result.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self._pending: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None

    def throw(self, error: BaseException) -> None:
        """Raise `error` in the coroutine. To be called on the loop."""
        self._pending = error
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> Any:
        self._task = asyncio.current_task()
        return await self

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._coroutine.send
        argument: Any = None
        while True:
            try:
                waits_for = step(argument)
            except StopIteration as stop:
                return stop.value
            try:
                argument = yield waits_for
                step = self._coroutine.send
            except asyncio.CancelledError as cancelled:
                step, argument = self._coroutine.throw, cancelled
                if self._pending is not None:
                    argument, self._pending = self._pending, None
                    if self._task is not None:
                        self._task.uncancel()
            except BaseException as error:  # noqa: BLE001 — all of them belong to the coroutine
                step, argument = self._coroutine.throw, error


class LoopThread:
    """Runs coroutines for threads that wait for them."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="errands-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` to its end and return its value.

        A soft time limit that Celery raises in the calling thread is passed on into the coroutine.

        Raises:
            RuntimeError: the calling code runs on the loop itself, and would wait for ever.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "code on the loop cannot wait for the loop; use await, or errands.core.green.wait"
            )
        work = _Interruptible(coroutine)
        # It runs in a copy of this context, and so sees which task it works for.
        future = asyncio.run_coroutine_threadsafe(work.run(), self.loop)
        while True:
            try:
                return future.result()  # type: ignore[no-any-return]
            except SoftTimeLimitExceeded as limit:
                if future.done():
                    raise
                self.loop.call_soon_threadsafe(work.throw, limit)
            except BaseException:
                if not future.done():  # the process is asked to end: do not leave the coroutine behind
                    future.cancel()
                raise

    def close(self) -> None:
        """Stop the loop; what still runs on it is cancelled."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=5)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()


_thread: LoopThread | None = None
_owner = 0
_lock = threading.Lock()


def process_loop() -> LoopThread:
    """The loop of this process; a forked child starts its own."""
    global _thread, _owner
    with _lock:
        if _thread is None or _owner != os.getpid():
            _thread, _owner = LoopThread(), os.getpid()
        return _thread
