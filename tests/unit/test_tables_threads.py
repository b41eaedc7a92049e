"""Steps in a thread: who is interrupted meanwhile waits for the step."""

from __future__ import annotations

import asyncio
import threading

import pytest

from errands.kits.tables.threads import aside


async def test_a_step_gives_what_it_returns_and_raises() -> None:
    assert await aside(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await aside(divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_goes_on_when_the_step_has_ended(fails: bool) -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        go.wait(30)
        ended.set()
        if fails:
            raise RuntimeError("nobody is to see this")

    async def caller() -> bool:
        try:
            await aside(step)
        except asyncio.CancelledError:
            return ended.is_set()
        return False

    task = asyncio.create_task(caller())
    await asyncio.to_thread(begun.wait, 30)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    assert await task
