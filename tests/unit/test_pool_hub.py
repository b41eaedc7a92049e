"""Celery's hub on the event loop, without a worker: a real hub of kombu's, a real loop in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.exceptions import WorkerShutdown
from celery.worker import state
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer

from errands.worker.loop import LoopThread
from errands.worker.pool.hub import HubOnLoop


class Rig:
    """A hub, a loop, and what the worker's parts would have done."""

    def __init__(self) -> None:
        self.loop = LoopThread()
        self.hub = Hub(Timer())
        self.hub.call_repeatedly(0.01, lambda: None)  # it turns now and then
        self.late = 0.0
        self.stood_in: list[str] = []
        self.before = 0
        self.held_up = 0
        self.on_loop = HubOnLoop(
            self.loop.loop, before=self._before, stand_in=lambda: self.stood_in.append(current()),
            late=lambda: self.late,
        )  # fmt: skip

    def _before(self) -> None:
        self.before += 1

    def run(self, function: Callable[[], Any]) -> Any:
        return self.on_loop.run(self.hub, function, self._count)

    def _count(self) -> None:
        self.held_up += 1

    def turn_until(self, condition: Callable[[], bool]) -> Callable[[], str]:
        """A consumer loop: the hub turns until `condition`. Its value is the thread that it ran in."""

        def turn() -> str:
            turns = self.hub.create_loop()
            while not condition():
                next(turns)
            return current()

        return turn


def current() -> str:
    return threading.current_thread().name


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.loop.close()
    rig.hub.close()
    rig.on_loop.close()


def test_the_hub_turns_on_the_loop_and_tells_before_it_waits(rig: Rig) -> None:
    assert rig.run(rig.turn_until(lambda: rig.before > 3)) == "errands-loop"
    assert not rig.on_loop.runs


def test_what_is_ready_is_called_and_tasks_go_on_meanwhile(rig: Rig) -> None:
    reading, writing = os.pipe()
    read: list[bytes] = []
    rig.hub.add_reader(reading, lambda: read.append(os.read(reading, 1)))

    async def write() -> None:
        for _ in range(3):
            os.write(writing, b"x")
            await asyncio.sleep(0)

    asyncio.run_coroutine_threadsafe(write(), rig.loop.loop)
    rig.run(rig.turn_until(lambda: len(read) == 3))
    rig.hub.remove(reading)
    os.close(reading)
    os.close(writing)


def test_timers_of_the_hub_come_due(rig: Rig) -> None:
    fired: list[float] = []
    rig.hub.call_later(0.05, lambda: fired.append(time.monotonic()))
    began = time.monotonic()
    rig.run(rig.turn_until(lambda: bool(fired)))
    assert fired[0] - began >= 0.05


def test_the_loop_and_other_threads_wake_it(rig: Rig) -> None:
    heard: list[str] = []

    async def from_the_loop() -> None:
        rig.hub.call_soon(heard.append, "loop")
        rig.on_loop.wake()

    def from_a_thread() -> None:
        rig.hub.call_soon(heard.append, "thread")
        asyncio.run_coroutine_threadsafe(from_the_loop(), rig.loop.loop)

    timer = threading.Timer(0.05, from_a_thread)
    timer.start()
    rig.run(rig.turn_until(lambda: len(heard) == 2))
    timer.join()
    assert sorted(heard) == ["loop", "thread"]


def test_a_hub_with_nothing_to_wait_for_does_not_put_the_loop_to_sleep(rig: Rig) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    task = asyncio.run_coroutine_threadsafe(turn(), rig.loop.loop)
    rig.run(rig.turn_until(lambda: turns > 1000))
    task.cancel()
    assert rig.before < 100  # it slept, the loop did not


@pytest.mark.parametrize("error", [ValueError("broken"), WorkerShutdown(0), ConnectionError("gone")])
def test_errors_are_the_callers_and_the_loop_lives_on(rig: Rig, error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        rig.run(fail)
    assert rig.run(rig.turn_until(lambda: rig.before > 1)) == "errands-loop"


def test_a_hub_that_was_reset_runs_again(rig: Rig) -> None:
    """As Celery does when the connection is lost."""

    def fail() -> None:
        next(rig.hub.create_loop())
        rig.hub.reset()
        raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            rig.run(fail)
    assert rig.run(rig.turn_until(lambda: rig.before > 5)) == "errands-loop"


def test_while_a_task_holds_up_the_loop_the_waiting_thread_is_the_hub(rig: Rig) -> None:
    free, held = threading.Event(), threading.Event()

    async def hold_up() -> None:
        held.set()
        await asyncio.sleep(0)
        free.wait()

    def hold_up_later() -> None:
        asyncio.run_coroutine_threadsafe(hold_up(), rig.loop.loop)
        held.wait()
        rig.late = 5.0  # as the watchdog would find

    threading.Timer(0.05, hold_up_later).start()
    stand_in = rig.stood_in

    def look() -> None:
        while len(stand_in) < 2:
            time.sleep(0.01)
        rig.late = 0.0
        free.set()

    looking = threading.Thread(target=look)
    looking.start()
    here = current()
    rig.run(rig.turn_until(lambda: free.is_set() and rig.late == 0.0))
    looking.join()
    assert set(stand_in) == {here}
    assert rig.held_up >= len(stand_in)


def test_in_the_middle_of_a_turn_nobody_else_is_the_hub(rig: Rig) -> None:
    rig.late = 5.0
    looks = 0

    def late() -> float:
        nonlocal looks
        looks += 1
        return 5.0

    rig.on_loop._late = late

    def long_turn() -> None:
        while looks < 2:
            time.sleep(0.01)

    rig.run(long_turn)
    assert rig.stood_in == []
    assert rig.held_up == 0  # whoever looks for a hub that stands still is to find it


def test_a_worker_that_is_told_to_stop_ends_though_a_task_holds_up_the_loop(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()

    async def hold_up() -> None:
        free.wait()

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(hold_up(), rig.loop.loop)
        rig.late = 5.0
        monkeypatch.setattr(state, "should_stop", 3)

    threading.Timer(0.05, stop).start()
    with pytest.raises(WorkerShutdown) as raised:
        rig.run(rig.turn_until(lambda: False))
    assert raised.value.code == 3
    free.set()


def test_who_is_interrupted_takes_the_hub_off_the_loop(rig: Rig) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    rig.late, rig.on_loop._stand_in = 5.0, interrupt
    with pytest.raises(KeyboardInterrupt):
        rig.run(rig.turn_until(lambda: False))
    assert not rig.on_loop.runs
