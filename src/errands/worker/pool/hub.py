"""Celery's hub as one more coroutine of the pool's event loop, so that both live in one thread.

In threads of their own, hub and loop wait for the interpreter's lock at each message and each end, and wake
each other through a pipe. Here Celery's consumer loop runs in a greenlet (`errands.core.green`): where it
would wait for its connections, the loop turns. What it says to the server in between steps aside as well, by
its connections (`errands.broker.green`).

The thread that called waits. While a task holds up the loop, and the hub with it, that thread stands in: it
does what was posted to the hub, so that a worker still ends in order.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery.worker import state
from kombu.utils.eventio import READ

from errands.core import green

_LOOK = 0.25  # seconds between two looks whether the loop turns
_TOO_LATE = 1.0  # seconds without a turn, after which the waiting thread stands in
_LEAVE = 2.0  # seconds that the hub has to leave the loop


class LoopPoller:
    """In place of kombu's poller: to wait for connections gives the loop its turns.

    Args:
        inner: kombu's, which keeps what is waited for.
        loop: the loop; `poll` is called on it, in a greenlet.
        before: called before each wait, in the greenlet.
    """

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop, before: Callable[[], object]) -> None:
        self.inner = inner
        self.waits = threading.Lock()  # whoever has it, while the hub waits, is the hub
        self.waits.acquire()
        self._loop = loop
        self._before = before
        self._number = descriptor(inner)
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        assert self._number is not None, "kombu's poller has no file descriptor"  # noqa: S101
        loop.add_reader(self._number, self._go_on)

    def register(self, fd: int, flags: int) -> Any:
        """As kombu's."""
        return self.inner.register(fd, flags)

    def unregister(self, fd: int) -> Any:
        """As kombu's."""
        return self.inner.unregister(fd)

    def wake(self) -> None:
        """On the loop: let the hub look at what it has to do, now or at its next wait."""
        self._woken = True
        self._go_on()

    def poll(self, timeout: float | None) -> Any:
        """What is ready, after at least one turn of the loop. It may return early, with nothing."""
        self._before()
        self.waits.release()
        try:
            if self._woken or (timeout is not None and timeout <= 0):
                green.wait(asyncio.sleep(0))
            else:
                self._waiting = self._loop.create_future()
                self._set_timer(timeout)
                green.wait(self._waiting)
        finally:
            self._waiting, self._woken = None, False
            self.waits.acquire()
        return self.inner.poll(0)

    def give_turn(self) -> None:
        """In the hub's greenlet: let the loop turn once, with whatever begins or is ready."""
        self.waits.release()
        try:
            green.wait(asyncio.sleep(0))
        finally:
            self.waits.acquire()

    def close(self) -> None:
        """As kombu's."""
        self.detach()
        self.inner.close()

    def detach(self) -> None:
        """On the loop: it need not look at what the hub waits for any more."""
        if self._number is not None:
            self._loop.remove_reader(self._number)
            self._number = None
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, timeout: float | None) -> None:
        """One that comes due earlier will do: a timer for each wait, which nearly always ends before, costs
        more."""
        due = self._loop.time() + (1.0 if timeout is None else timeout)
        timer = self._timer
        if timer is None or timer.when() > due or timer.when() <= self._loop.time():
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(due, self._go_on)

    def _go_on(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class HubOnLoop:
    """Runs Celery's consumer loop on the event loop.

    Args:
        loop: runs already, in another thread than the caller's.
        before: called on the loop before each wait of the hub, and when it leaves.
        stand_in: called in the waiting thread while a task holds up the loop.
        late: seconds since the loop was last seen to turn.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, before: Callable[[], object],
        stand_in: Callable[[], object], late: Callable[[], float],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._before = before
        self._stand_in = stand_in
        self._late = late
        self._poller: LoopPoller | None = None
        self._task: asyncio.Task[None] | None = None
        # A hub that waits for nothing at all sleeps, and would put the loop to sleep.
        self._nothing, self._never = os.pipe()

    @property
    def runs(self) -> bool:
        """Whether the hub is on the loop."""
        return self._poller is not None

    def wake(self) -> None:
        """On the loop: let the hub look at what it has to do."""
        if self._poller is not None:
            self._poller.wake()

    def give_turn(self) -> None:
        """As the hub: let what has just begun go on at once, in place of after all that the hub is at."""
        if self._poller is not None and green.in_green():
            self._poller.give_turn()

    def run(self, hub: Any, function: Callable[[], Any], held_up: Callable[[], object]) -> Any:
        """Run `function`, a consumer loop on `hub`, to its end. Its value and its errors are the caller's.

        Args:
            held_up: called again and again while a task holds up the loop: the hub's standing still is not
                the hub's fault.
        """
        outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._begin, hub, function, outcome)
        try:
            while not concurrent.futures.wait([outcome], _LOOK).done:
                if state.should_stop is not None or state.should_terminate is not None:
                    self._loop.call_soon_threadsafe(self.wake)
                if self._late() > _TOO_LATE and asyncio.current_task(self._loop) is not self._task:
                    held_up()
                    self._be_hub()
        except BaseException:
            self._loop.call_soon_threadsafe(self._cancel)
            concurrent.futures.wait([outcome], _LEAVE)
            raise
        return outcome.result()

    def close(self) -> None:
        """The pool has ended."""
        os.close(self._nothing)
        os.close(self._never)

    def _be_hub(self) -> None:
        poller = self._poller
        if poller is None or not poller.waits.acquire(blocking=False):
            return  # the hub is in the middle of something
        try:
            self._stand_in()
        finally:
            poller.waits.release()
        state.maybe_shutdown()

    # -- on the loop

    def _begin(self, hub: Any, function: Callable[[], Any], outcome: concurrent.futures.Future[Any]) -> None:
        self._task = self._loop.create_task(self._serve(hub, function, outcome), name="celery-hub")

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _serve(
        self, hub: Any, function: Callable[[], Any], outcome: concurrent.futures.Future[Any]
    ) -> None:
        hub.poller = self._poller = poller = LoopPoller(hub.poller, self._loop, self._before)
        hub.add(self._nothing, _never_called, READ)
        value, error = None, None
        try:
            value = await green.Spawn(function)
        except BaseException as raised:  # noqa: BLE001 — also WorkerShutdown, which is a SystemExit
            error = raised
        self._poller = None
        self._before()  # what it had begun to say is said
        poller.detach()
        with suppress(KeyError, OSError, ValueError):
            hub.remove(self._nothing)
        if hub.poller is poller:
            hub.poller = poller.inner
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(value)


def descriptor(poller: Any) -> int | None:
    """The file descriptor by which one can wait for kombu's poller; None where it has none.

    kombu 5.7 keeps its epoll or kqueue in a private attribute: `tests/unit/test_celery_internals.py`.
    """
    for name in ("_epoll", "_kqueue"):
        found = getattr(poller, name, None)
        if found is not None:
            number: int = found.fileno()
            return number
    return None


def _never_called() -> None:
    """Nothing is ever written into that pipe."""
