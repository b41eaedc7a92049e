"""Synchronous code that waits without blocking the event loop: it runs in a greenlet, which steps aside.

`await Spawn(function)` runs a plain function in a greenlet of its own. Inside it, at any depth,
`wait(awaitable)` gives the event loop back until the awaitable is done. What the awaitable waits for goes to
the asyncio task unchanged, so cancellation, time-outs and task groups work as everywhere.

A coroutine given to `wait` is stepped *in the greenlet*, not in the task around it: what keys its data by
greenlet finds the same key in synchronous and asynchronous code of one call.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

import greenlet  # type: ignore[import-untyped]

T = TypeVar("T")


class _Green(greenlet.greenlet):
    """A greenlet that may use `wait`."""


class Spawn(Generic[T]):
    """Awaitable: runs `function()` in a greenlet, and gives its value or raises its error.

    The function sees the context variables of the task that awaits it; what it sets stays its own.

    Args:
        function: called without arguments.
        translate: asked about each exception that asyncio throws in (a cancellation, as a rule); what it
            returns is raised in the function instead.
    """

    __slots__ = ("_function", "_translate")

    def __init__(
        self,
        function: Callable[[], T],
        translate: Callable[[BaseException], BaseException] | None = None,
    ) -> None:
        self._function = function
        self._translate = translate

    def __await__(self) -> Generator[Any, Any, T]:
        here = greenlet.getcurrent()
        green = _Green(self._function, here)
        green.gr_context = contextvars.copy_context()  # a new greenlet begins with an empty one
        passed = green.switch()
        while not green.dead:
            try:
                answer = yield passed
            except BaseException as error:  # noqa: BLE001 — all of them belong to the function
                self._come_home(green)
                passed = green.throw(error if self._translate is None else self._translate(error))
            else:
                self._come_home(green)
                passed = green.switch(answer)
        result: T = passed
        return result

    @staticmethod
    def _come_home(green: _Green) -> None:
        """Each step returns to whoever makes it: an eager first step may come from another greenlet."""
        here = greenlet.getcurrent()
        if green.parent is not here:
            green.parent = here


def in_green() -> bool:
    """Whether this code runs inside a `Spawn`, where `wait` works."""
    return isinstance(greenlet.getcurrent(), _Green)


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for `awaitable` in synchronous code inside a `Spawn`; meanwhile the event loop goes on.

    Raises:
        RuntimeError: this code does not run inside a `Spawn`.
    """
    green = greenlet.getcurrent()
    if not isinstance(green, _Green) or green.parent is None:
        close = getattr(awaitable, "close", None)
        if close is not None:
            close()
        raise RuntimeError("wait() works only inside a Spawn; in a coroutine, use await")
    steps: Any = awaitable.__await__()
    step, argument = steps.send, None
    try:
        while True:
            passed = step(argument)
            try:
                step, argument = steps.send, green.parent.switch(passed)
            except BaseException as error:  # noqa: BLE001 — it is thrown into the awaitable
                step, argument = steps.throw, error
    except StopIteration as stop:
        value: T = stop.value
        return value
