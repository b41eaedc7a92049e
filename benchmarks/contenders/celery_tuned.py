"""Stock Celery with the settings that Errands makes, as far as Celery has them."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from benchmarks.contender import Place
from benchmarks.contenders._celery import BROKER, PACKAGES, declare, pending, worker

app = Celery("benchmark", broker=BROKER, backend=BROKER)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_track_started=True,
    task_soft_time_limit=25 * 60,
    task_time_limit=30 * 60,
    worker_prefetch_multiplier=4,
    worker_max_tasks_per_child=1000,
    worker_max_memory_per_child=400_000,
    task_send_sent_event=True,
    worker_send_task_events=True,
)
TASKS = declare(app)


class CeleryTuned:
    """Celery, set up with care."""

    label = "Celery, tuned"
    setup = (
        "acknowledged late, given back when a worker is lost, started tracked, time limits, children "
        "recycled after 1,000 tasks, prefetch 4, events for Flower; results kept"
    )
    packages = PACKAGES
    order = 1

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


CONTENDER = CeleryTuned()
