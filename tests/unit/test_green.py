"""The bridge between synchronous code and the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from errands.core.green import Spawn, in_green, wait

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def run(function: Any, **options: Any) -> Any:
    async def main() -> Any:
        return await Spawn(function, **options)

    return asyncio.run(main())


def test_a_value_and_an_error_come_back() -> None:
    assert run(lambda: 3) == 3

    def fails() -> None:
        raise KeyError("it")

    with pytest.raises(KeyError, match="it"):
        run(fails)


def test_waiting_lets_others_go_on() -> None:
    order: list[str] = []

    def work(name: str) -> str:
        order.append(f"{name} begins")
        wait(asyncio.sleep(0))
        order.append(f"{name} ends")
        return name

    async def main() -> list[str]:
        async def one(name: str) -> str:
            return await Spawn(lambda: work(name))

        return await asyncio.gather(one("a"), one("b"))

    assert asyncio.run(main()) == ["a", "b"]
    assert order == ["a begins", "b begins", "a ends", "b ends"]


def test_what_is_done_already_is_not_waited_for() -> None:
    def work() -> int:
        done = asyncio.get_running_loop().create_future()
        done.set_result(7)
        return wait(done)

    assert run(work) == 7


def test_an_error_of_the_awaitable_is_raised_where_it_is_waited_for() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("inside")

    def work() -> str:
        try:
            wait(fails())
        except ValueError as error:
            return str(error)
        return "nothing"

    assert run(work) == "inside"


def test_synchronous_and_asynchronous_code_of_one_call_run_in_one_greenlet() -> None:
    import greenlet

    async def inner() -> Any:
        await asyncio.sleep(0)
        return greenlet.getcurrent()

    assert run(lambda: wait(inner()) is greenlet.getcurrent())


def test_context_variables_go_in_and_do_not_come_out() -> None:
    def work() -> str:
        seen = colour.get()
        colour.set("blue")
        wait(asyncio.sleep(0))
        return f"{seen}, {colour.get()}"

    async def main() -> tuple[str, str]:
        colour.set("red")
        return await Spawn(work), colour.get()

    assert asyncio.run(main()) == ("red, blue", "red")


def test_a_cancellation_is_seen_and_can_be_cleaned_up_after() -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            wait(asyncio.sleep(60))
        except asyncio.CancelledError:
            wait(asyncio.sleep(0))
            seen.append("cleaned up")
            raise

    async def main() -> bool:
        async def job() -> None:
            await Spawn(work)

        task = asyncio.create_task(job())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(main()) is True
    assert seen == ["cleaned up"]


def test_a_cancellation_can_be_translated() -> None:
    def work() -> str:
        try:
            wait(asyncio.sleep(60))
        except TimeoutError as error:
            return f"caught {error}"
        return "not interrupted"

    async def main() -> str:
        async def job() -> str:
            return await Spawn(work, translate=lambda error: TimeoutError(type(error).__name__))

        task = asyncio.create_task(job())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "caught CancelledError"


def test_timeouts_and_task_groups_work_inside() -> None:
    async def slow() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            pass
        async with asyncio.TaskGroup() as group:
            children = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
        return str([child.result() for child in children])

    assert run(lambda: wait(slow())) == "[0, 1, 2]"


def test_waiting_elsewhere_is_refused() -> None:
    assert not in_green()
    assert run(in_green)
    with pytest.raises(RuntimeError, match="inside a Spawn"):
        wait(asyncio.sleep(0))


def test_a_spawn_within_a_spawn() -> None:
    async def inner() -> int:
        return await Spawn(lambda: wait(asyncio.sleep(0, 5)))

    assert run(lambda: wait(inner())) == 5


def test_left_alone_it_is_closed_in_order() -> None:
    seen: list[str] = []

    def work() -> None:
        try:
            wait(asyncio.sleep(60))
        finally:
            seen.append("closed")

    async def job() -> None:
        await Spawn(work)

    coroutine = job()
    loop = asyncio.new_event_loop()
    try:

        async def begin() -> None:
            coroutine.send(None)

        loop.run_until_complete(begin())
        coroutine.close()
    finally:
        loop.close()
    assert seen == ["closed"]
