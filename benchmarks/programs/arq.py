# mypy: disable-error-code="import-not-found"
"""arq: https://arq-docs.helpmanual.io, "Usage"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings

from benchmarks import work
from benchmarks.program import RESULTS, SETTING, URL, Looping

_REDIS = RedisSettings.from_dsn(URL)
_CONCURRENCY = {"tuned": 50, "waiting": 100}
_TOGETHER = 100  # connections of a pool; more calls at once only wait for one


async def _empty(context: dict[str, Any]) -> int:
    return await work.async_empty()


async def _sleeper(context: dict[str, Any]) -> int:
    return await work.async_sleeper()


class WorkerSettings:
    """What `arq benchmarks.programs.arq.WorkerSettings` runs."""

    functions = (func(_empty, name=work.EMPTY), func(_sleeper, name=work.SLEEPER))
    redis_settings = _REDIS
    keep_result = 3600 if RESULTS else 0
    max_jobs = _CONCURRENCY.get(SETTING, 10)
    poll_delay = 0.5 if SETTING == "default" else 0.01


_pool: Any = None


@asynccontextmanager
async def _opened() -> AsyncIterator[None]:
    global _pool
    _pool = await create_pool(_REDIS)
    try:
        yield
    finally:
        await _pool.aclose()


async def _one(task: str) -> None:
    await _pool.enqueue_job(task)


async def _many(task: str, count: int) -> None:
    for start in range(0, count, _TOGETHER):
        await asyncio.gather(*(_one(task) for _ in range(min(_TOGETHER, count - start))))


SENDER = Looping(one=_one, many=_many, opened=_opened)
