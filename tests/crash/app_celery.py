"""The same application on stock Celery, set up as carefully as Celery can be."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from celery import Celery
from tests.crash import work
from tests.crash.work import Attempt

app = Celery("crash", broker=os.environ["CRASH_BROKER_URL"], backend=os.environ["CRASH_BROKER_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue=work.QUEUE,
    task_routes={"poison": {"queue": work.POISON}},
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": int(os.environ.get("CRASH_VISIBILITY", "3600"))},
    result_expires=3600,
)
work.watch_points()


def attempt(task: Any, key: str) -> Attempt:
    return Attempt(task.request.id, key, 0, task.name)


@app.task(name="mark", bind=True)
def mark(self: Any, key: str, seconds: float = 0.0) -> str:
    attempt(self, key).mark(seconds)
    return key


@app.task(name="stumble", bind=True, autoretry_for=(ConnectionError,), retry_backoff=0.1, max_retries=3)
def stumble(self: Any, key: str, gate: str) -> None:
    attempt(self, key).stumble(gate)


@app.task(name="poison", bind=True)
def poison(self: Any, key: str, kind: str) -> None:
    attempt(self, key).poison(kind)


@app.task(name="tick", bind=True)
def tick(self: Any) -> None:
    attempt(self, f"tick-{self.request.id}").mark(0)


# Celery knows no aliases; the same function under both names is the usual answer.
def rename(self: Any, key: str, seconds: float = 0.0) -> str:
    attempt(self, key).mark(seconds)
    return key


app.task(rename, name="old-name", bind=True)
if work.VERSION > 1:
    app.task(rename, name="new-name", bind=True)

if work.TICK_SECONDS:
    app.conf.beat_schedule = {"tick": {"task": "tick", "schedule": timedelta(seconds=work.TICK_SECONDS)}}
