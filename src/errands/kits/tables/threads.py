"""Steps that block, in a thread, while the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a thread.

    A thread can't be interrupted: who is cancelled or out of time meanwhile goes on when the step has ended,
    so that nobody closes a file which it still reads.
    """
    step = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(step)
    except BaseException:
        await asyncio.wait([step])
        if not step.cancelled():
            step.exception()  # it is looked at: what ended us goes first
        raise
