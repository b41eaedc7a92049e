"""Stock Celery with Redis as broker and result store, as its "First steps" set it up: no further settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from celery import Celery

from benchmarks import work
from benchmarks.contender import Place

BROKER = os.environ.get("BENCHMARK_BROKER_URL", "redis://127.0.0.1")
QUEUE = "celery"

app = Celery("benchmark", broker=BROKER, backend=BROKER)

TASKS = {
    function.__name__: app.task(name=function.__name__)(function)
    for function in (work.empty, work.arguments, work.sleeper)
}


class CeleryDefault:
    """Celery, out of the box."""

    label = "Celery"
    setup = "stock Celery, default settings: acknowledged before the work is done, no events, results kept"
    packages = ("celery", "kombu", "redis", "hiredis")
    order = 0

    def worker(self, processes: int) -> list[str]:
        return worker(__name__, processes)

    def companions(self) -> dict[str, list[str]]:
        return {}

    def sender(self, work: str) -> Callable[..., object]:
        send: Callable[..., object] = TASKS[work].delay
        return send

    def pending(self, place: Place) -> int:
        return pending(place, QUEUE)

    def recorded(self, place: Place) -> bool:
        return True


def worker(module: str, processes: int) -> list[str]:
    """The command of Celery's own documentation."""
    return [
        sys.executable, "-m", "celery", "--app", f"{module}:app", "worker", "--loglevel", "INFO",
        "--concurrency", str(processes),
    ]  # fmt: skip


def pending(place: Place, queue: str) -> int:
    """What kombu's Redis transport holds of a queue without priorities."""
    with place.client.pipeline(transaction=True) as pipe:
        pipe.llen(queue)
        pipe.hlen("unacked")
        return sum(int(length) for length in pipe.execute())


CONTENDER = CeleryDefault()
