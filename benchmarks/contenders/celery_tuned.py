"""Stock Celery with the settings that Errands makes, as far as Celery has them: the same promises, its own way."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from benchmarks import work
from benchmarks.contender import Place
from benchmarks.contenders.celery_default import BROKER, QUEUE, pending, worker

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

TASKS = {
    function.__name__: app.task(name=function.__name__)(function)
    for function in (work.empty, work.arguments, work.sleeper)
}


class CeleryTuned:
    """Celery, set up with care."""

    label = "Celery, tuned"
    setup = (
        "stock Celery, acknowledged late, rejected on a lost worker, started tracked, time limits, children "
        "recycled after 1,000 tasks, prefetch 4, events for Flower, results kept"
    )
    packages = ("celery", "kombu", "redis", "hiredis")
    order = 1

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


CONTENDER = CeleryTuned()
