# mypy: disable-error-code="import-not-found, untyped-decorator"
"""streaQ: https://streaq.readthedocs.io, "Getting started" and "Workers"."""

from __future__ import annotations

from typing import Any

from streaq import Worker

from benchmarks import work
from benchmarks.program import CHUNK, RESULTS, SETTING, URL, Looping

_TUNED: dict[str, Any] = {"anyio_kwargs": {"use_uvloop": True}}
_CONCURRENCY = {"tuned": 16, "waiting": 64}

worker: Any = Worker(
    redis_url=URL,
    **({"concurrency": _CONCURRENCY[SETTING], **_TUNED} if SETTING in _CONCURRENCY else {}),
)
_OPTIONS: dict[str, Any] = {} if RESULTS else {"ttl": 0}
TASKS = {
    work.EMPTY: worker.task(name=work.EMPTY, **_OPTIONS)(work.async_empty),
    work.SLEEPER: worker.task(name=work.SLEEPER, **_OPTIONS)(work.async_sleeper),
}


async def _one(task: str) -> None:
    await TASKS[task].enqueue()


async def _many(task: str, count: int) -> None:
    for start in range(0, count, CHUNK):
        await worker.enqueue_many([TASKS[task].enqueue() for _ in range(min(CHUNK, count - start))])


SENDER = Looping(one=_one, many=_many, opened=lambda: worker)
