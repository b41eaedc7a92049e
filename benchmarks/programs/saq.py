# mypy: disable-error-code="import-not-found"
"""SAQ: https://saq-py.readthedocs.io, "Getting started" and "Monitoring"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue

from benchmarks import work
from benchmarks.program import CHUNK, RESULTS, SETTING, URL, Looping

_CONCURRENCY = {"tuned": 20, "waiting": 100}

queue: Any = Queue.from_url(URL, **({"max_concurrent_ops": 200} if SETTING == "waiting" else {}))


async def _empty(context: dict[str, Any]) -> int:
    return await work.async_empty()


async def _sleeper(context: dict[str, Any]) -> int:
    return await work.async_sleeper()


settings = {
    "queue": queue,
    "functions": [(work.EMPTY, _empty), (work.SLEEPER, _sleeper)],
    "concurrency": _CONCURRENCY.get(SETTING, 10),
}


@asynccontextmanager
async def _opened() -> AsyncIterator[None]:
    await queue.connect()
    try:
        yield
    finally:
        await queue.disconnect()


async def _one(task: str) -> None:
    # Kept for ten minutes, as is the default; or thrown away at once.
    await queue.enqueue(task, ttl=600 if RESULTS else -1)


async def _many(task: str, count: int) -> None:
    for start in range(0, count, CHUNK):
        await asyncio.gather(*(_one(task) for _ in range(min(CHUNK, count - start))))


SENDER = Looping(one=_one, many=_many, opened=_opened)
