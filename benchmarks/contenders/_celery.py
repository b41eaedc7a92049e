"""What contenders share that are Celery on its Redis transport. No application is made here: Celery would mix
the tasks of several in one process."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery

from benchmarks import work
from benchmarks.contender import Place

BROKER = os.environ.get("BENCHMARK_BROKER_URL", "redis://127.0.0.1")
QUEUE = "celery"
PACKAGES = ("celery", "kombu", "redis", "hiredis")


def declare(app: Celery, **options: Any) -> dict[str, Any]:
    """The tasks of the benchmark as tasks of `app`, by name."""
    functions = (work.empty, work.arguments, work.sleeper)
    return {
        function.__name__: app.task(name=function.__name__, **options)(function) for function in functions
    }


def worker(module: str, processes: int) -> list[str]:
    """The command of Celery's own documentation."""
    return [
        sys.executable, "-m", "celery", "--app", f"{module}:app", "worker", "--loglevel", "INFO",
        "--concurrency", str(processes),
    ]  # fmt: skip


def pending(place: Place) -> int:
    """What kombu's Redis transport holds of a queue without priorities."""
    with place.client.pipeline(transaction=True) as pipe:
        pipe.llen(QUEUE)
        pipe.hlen("unacked")
        return sum(int(length) for length in pipe.execute())
