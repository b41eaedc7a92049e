"""For plain `def` code: a coroutine's value, without an event loop of one's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` to its end, on a loop in a thread of its own, and return its value.

    A loop in the calling thread would do, were it not for what is raised there from outside: a soft time
    limit, Ctrl-C. Here it always ends the waiting, and the coroutine is cancelled.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    lock = threading.Lock()
    stop: list[Callable[[], object]] = []
    unwanted = False

    async def work() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101
        with lock:
            stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
            if unwanted:
                coroutine.close()
                raise asyncio.CancelledError
        return await coroutine

    def serve() -> None:
        try:
            value = asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 — whoever waits is told
            future.set_exception(error)
        else:
            future.set_result(value)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(serve,), name="errands-fetch", daemon=True)
    thread.start()
    try:
        return future.result()
    finally:
        if not future.done():
            with lock:
                unwanted = True
            with suppress(RuntimeError):  # it has just ended by itself
                for call in stop:
                    call()
        thread.join()
