"""Functions of the application, plain or `async def`, called without holding up the loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What `function` returns; a plain one works in a thread, since others share this loop."""
    if inspect.iscoroutinefunction(function):
        return await function(*args, **kwargs)
    found = await asyncio.to_thread(function, *args, **kwargs)
    return await found if inspect.isawaitable(found) else found
