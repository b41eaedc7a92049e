"""Stock Celery with Redis as broker and result store, as its "First steps" set it up: no further settings."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from benchmarks.contender import Place
from benchmarks.contenders._celery import BROKER, PACKAGES, declare, pending, worker

app = Celery("benchmark", broker=BROKER, backend=BROKER)
TASKS = declare(app)


class CeleryDefault:
    """Celery, out of the box."""

    label = "Celery"
    setup = "default settings: acknowledged before the work is done, no events; results kept"
    packages = PACKAGES
    order = 0

    def worker(self, processes: int) -> list[str]:
        return worker(__name__, processes)

    def companions(self) -> dict[str, list[str]]:
        return {}

    def sender(self, work: str) -> Callable[..., object]:
        send: Callable[..., object] = TASKS[work].delay
        return send

    def pending(self, place: Place) -> int:
        return pending(place)

    def recorded(self, place: Place) -> bool:
        return True


CONTENDER = CeleryDefault()
