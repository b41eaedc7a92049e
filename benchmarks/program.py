"""What a contender's program (`programs/*.py`) is told, and what it gives the sender.

A program runs in the contender's own environment, beside the contender's own versions of everything: nothing
but the standard library here.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

URL = os.environ.get("BENCHMARK_BROKER_URL", "redis://127.0.0.1")
"""The Valkey server that this contender has to itself."""

RESULTS = os.environ.get("BENCHMARK_RESULTS", "1") == "1"
"""Whether results are to be kept."""

SETTING = os.environ.get("BENCHMARK_SETTING", "")
"""The name of the setting (`contender.Setting.name`) under which this process was started."""

PROCESSES = int(os.environ.get("BENCHMARK_PROCESSES", "2"))
"""How many cores there are to use."""

CHUNK = 1_000
"""How many calls are made together where a system has no call for many."""

ABSENT = 69
"""How a sender ends whose contender cannot be measured here (the service is unavailable); why, on stderr."""


class Absent(Exception):
    """This contender cannot be measured here, and why."""


@dataclass(frozen=True)
class Blocking:
    """How a system is sent tasks by plain code.

    Attributes:
        one: sends one task of that name, as a web application does.
        many: sends that many in the best way that the system's documentation knows.
    """

    one: Callable[[str], object]
    many: Callable[[str, int], object]


@asynccontextmanager
async def _nothing_to_open() -> AsyncIterator[None]:
    yield


@dataclass(frozen=True)
class Looping:
    """How a system is sent tasks by code on an asyncio loop.

    Attributes:
        one: as `Blocking.one`.
        many: as `Blocking.many`.
        opened: what must be open while tasks are sent.
    """

    one: Callable[[str], Awaitable[object]]
    many: Callable[[str, int], Awaitable[object]]
    opened: Callable[[], AbstractAsyncContextManager[object]] = _nothing_to_open
