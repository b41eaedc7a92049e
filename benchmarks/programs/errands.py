"""Errands: `docs/tasks.md` and `docs/running.md`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.program import RESULTS, SETTING, URL, Blocking
from errands import Errands, Settings
from errands.broker import commit

QUEUE = "benchmark"
_EVENT = "redis.call('XADD', context.prefix .. 'events'"


def _write_no_events() -> None:
    """To tell what events cost: the script that says all there is to say about runs, without that line."""
    whole = commit._script()
    if _EVENT not in whole:
        raise RuntimeError(f"the script of {commit.__name__} writes its events otherwise than by {_EVENT}…")
    commit._script = lambda: whole.replace(_EVENT, "tostring('XADD'")


if SETTING == "unrecorded":
    _write_no_events()

app = Errands(
    "benchmark",
    settings=Settings(
        home=Path(os.environ.get("BENCHMARK_HOME", ".errands")),
        broker_url=URL,
        log_level="INFO" if SETTING == "default" else "WARNING",
    ),
)
app.conf.task_ignore_result = not RESULTS
# A pool of processes does best with plain functions, the asyncio pool with coroutines.
_PLAIN = SETTING == "prefork"
TASKS: dict[str, Any] = {
    work.EMPTY: app.task(name=work.EMPTY, queue=QUEUE)(work.empty if _PLAIN else work.async_empty),
    work.SLEEPER: app.task(name=work.SLEEPER, queue=QUEUE)(work.sleeper if _PLAIN else work.async_sleeper),
}


def _many(task: str, count: int) -> None:
    TASKS[task].delay_many([()] * count)


SENDER = Blocking(one=lambda task: TASKS[task].delay(), many=_many)
