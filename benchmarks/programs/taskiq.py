# mypy: disable-error-code="import-not-found, untyped-decorator, misc"
"""Taskiq with taskiq-redis: https://taskiq-python.github.io, "Getting started" and "Available brokers"."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from benchmarks import work
from benchmarks.program import CHUNK, RESULTS, SETTING, URL, Looping

# From the group's beginning: what was sent before the worker came is work as well.
broker: Any = RedisStreamBroker(URL, consumer_id="0") if "streams" in SETTING else ListQueueBroker(URL)
if "tuned" in SETTING:
    broker = broker.with_serializer(ORJSONSerializer())
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(URL, prefix_str="result"))
TASKS = {
    work.EMPTY: broker.task(task_name=work.EMPTY)(work.async_empty),
    work.SLEEPER: broker.task(task_name=work.SLEEPER)(work.async_sleeper),
}


async def _many(task: str, count: int) -> None:
    # There is no call for many: as many calls at once as help.
    for start in range(0, count, CHUNK):
        await asyncio.gather(*(TASKS[task].kiq() for _ in range(min(CHUNK, count - start))))


@asynccontextmanager
async def _opened() -> AsyncIterator[None]:
    await broker.startup()
    try:
        yield
    finally:
        await broker.shutdown()


SENDER = Looping(one=lambda task: TASKS[task].kiq(), many=_many, opened=_opened)
