"""Errands: `docs/tasks.md` and `docs/running.md`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.program import RESULTS, SETTING, URL, Blocking
from errands import Errands, Settings
from errands.broker import script

QUEUE = "benchmark"
# Where the scripts write an event: the one of everything said about runs, and the one that sends plain ones.
# The commands that send one run without a script write its event as well.
_EVENTS = {"write_event": "redis.call('XADD', context.events", "send": "call('XADD', events"}


def _write_no_events() -> None:
    """To tell what events cost: the same scripts without those lines."""
    read = script._lua

    def without_events(name: str) -> str:
        text, event = read(name), _EVENTS.get(name, "")
        if event not in text:
            raise RuntimeError(f"{name}.lua writes events otherwise than by {event}…")
        return text.replace(event, "tostring('XADD'") if event else text

    script._lua = without_events
    script.Script.transaction = lambda self, operations: None  # type: ignore[method-assign]


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
