"""The asyncio pool and a hub that stops in the middle of things."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from errands import Errands
from errands.core import green
from errands.worker.pool.task_pool import TaskPool


class StoppedHub:
    """A hub that takes note of what it is to call, and comes to none of it."""

    def __init__(self) -> None:
        self.noted: list[Callable[..., Any]] = []

    def call_soon(self, function: Callable[..., Any]) -> None:
        self.noted.append(function)

    def fire_timers(self) -> None: ...


@pytest.mark.timeout(30)
def test_a_job_of_the_hubs_last_turn_runs_before_the_pool_stops() -> None:
    app = Errands("stops")

    @app.task(name="job")
    async def job() -> None: ...

    app.finalize()
    pool = TaskPool(2, app=app)
    pool.on_start()
    hub = StoppedHub()
    pool.register_with_event_loop(hub)
    begun, gate, ended = threading.Event(), threading.Event(), []

    def first(name: str, run_id: str) -> None:
        begun.set()
        green.wait(asyncio.to_thread(gate.wait))
        ended.append(run_id)

    pool.on_apply(first, ("job", "1"), {})
    assert begun.wait(10)
    pool.on_apply(lambda name, run_id: ended.append(run_id), ("job", "2"), {})
    assert hub.noted, "the loop is busy, so the second was left to the end of the hub's turn"
    gate.set()
    pool.on_stop()
    assert sorted(ended) == ["1", "2"]
