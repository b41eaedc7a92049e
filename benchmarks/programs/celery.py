"""Stock Celery, Redis as broker and result store: https://docs.celeryq.dev, "First Steps", "Optimizing"."""

from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks import work
from benchmarks.program import CHUNK, RESULTS, SETTING, URL, Blocking

app = Celery("benchmark", broker=URL, backend=URL)
if SETTING.startswith("careful"):
    # What Errands does by default, as far as Celery has it.
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
if SETTING.startswith("tuned"):
    app.conf.update(worker_prefetch_multiplier=128, worker_hijack_root_logger=False)
app.conf.task_ignore_result = not RESULTS
TASKS: dict[str, Any] = {
    work.EMPTY: app.task(name=work.EMPTY)(work.empty),
    work.SLEEPER: app.task(name=work.SLEEPER)(work.sleeper),
}


def _many(task: str, count: int) -> None:
    # kombu's own way to pipeline what is published.
    with app.producer_or_acquire() as producer:
        for start in range(0, count, CHUNK):
            with producer.batch(max_size=CHUNK):
                for _ in range(min(CHUNK, count - start)):
                    TASKS[task].apply_async(producer=producer)


SENDER = Blocking(one=lambda task: TASKS[task].delay(), many=_many)
