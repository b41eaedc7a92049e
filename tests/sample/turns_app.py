"""Tasks of tenants that take turns, with priorities and delays. Told all by environment."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from errands import Errands, Retry, Run

QUEUE = os.environ.get("SAMPLE_QUEUE", "turns")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("turns", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
if os.environ.get("SAMPLE_POOL") == "asyncio":
    app.conf.worker_pool = "errands.worker.pool:TaskPool"


def effect(*words: object) -> None:
    """Note outside of the system under test what happened, and when."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, f"{time.time():.6f}")) + "\n")


@app.task(name="serve", queue=QUEUE, fair_by="school_id")
def serve(school_id: str, number: int) -> None:
    effect("serve", school_id, number)
    time.sleep(0.02)


@app.task(name="serve_on_the_loop", queue=QUEUE, fair_by="order.school_id")
async def serve_on_the_loop(order: dict[str, str], number: int) -> None:
    effect("serve", order["school_id"], number)
    await asyncio.sleep(0.02)


@app.task(name="twice", queue=QUEUE, fair_by="school_id", retry=Retry(1, first=0.2, most=0.2, jitter=0))
def twice(school_id: str, number: int, *, run: Run) -> None:
    effect("serve" if run.attempt == 2 else "first", school_id, number)
    if run.attempt == 1:
        raise ConnectionError("once more")


@app.task(name="note", queue=QUEUE)
def note(word: str) -> None:
    effect("note", word)
    time.sleep(0.005)


@app.task(name="urgent", queue=QUEUE, priority="high")
def urgent(word: str) -> None:
    effect("note", word)
