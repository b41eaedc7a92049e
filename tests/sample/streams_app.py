"""A plain Celery application on our transport. It knows nothing of Errands; it is told all by environment."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import Celery

EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Celery("streams", broker=os.environ["STREAMS_BROKER"], backend=os.environ["STREAMS_BROKER"])
app.conf.update(
    broker_transport="errands.broker.transport:Transport",
    broker_transport_options={"key_prefix": os.environ["STREAMS_PREFIX"]},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


def effect(*words: object) -> None:
    """Note outside of the system under test what happened."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, os.getpid())) + "\n")


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="patient")
def patient(go: str, n: int) -> int:
    """Runs until the file `go` is there."""
    effect("begun", n)
    while not Path(go).exists():
        time.sleep(0.02)
    effect("done", n)
    return n


@app.task(name="early", acks_late=False)
def early(go: str, n: int) -> int:
    """The same, acknowledged before it runs."""
    return int(patient(go, n))
