"""Whether the person who asks may."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from errands.kits.tables.errors import NotAllowed

Allowed = Callable[[Any], bool | Awaitable[bool]]


async def check(allowed: Allowed | None, by: Any, what: str) -> None:
    """Ask `allowed` about `by`; without it, everybody may.

    Raises:
        NotAllowed: the answer is no.
    """
    if allowed is None:
        return
    answer = allowed(by)
    if inspect.isawaitable(answer):
        answer = await answer
    if not answer:
        raise NotAllowed(f"{by!s} may not do the {what}")
