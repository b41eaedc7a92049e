"""Tasks under limits, for tests that need real worker processes. It is told all by environment."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from errands import Concurrency, Errands, Limit, Retry, Run

QUEUE = os.environ.get("SAMPLE_QUEUE", "limits")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))
GO = Path(os.environ.get("SAMPLE_GO", "/nonexistent"))

app = Errands("limits", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
if os.environ.get("SAMPLE_POOL") == "asyncio":
    app.conf.worker_pool = "errands.worker.pool:TaskPool"


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, os.getpid())) + "\n")


async def until_told() -> None:
    while not GO.exists():
        await asyncio.sleep(0.02)


@app.task(name="often", queue=QUEUE, limit=Limit("30/2s"))
async def often(n: int) -> int:
    effect("often", n)
    return n


@app.task(name="mail", queue=QUEUE, limit=Limit("10/1s", by="school", counts="recipients"))
async def mail(school: int, recipients: list[str]) -> int:
    effect("mail", school, len(recipients))
    return len(recipients)


@app.task(name="hourly", queue=QUEUE, limit=Limit("1/h", by="who"))
def hourly(who: str) -> str:
    effect("hourly", who)
    return who


@app.task(name="free", queue=QUEUE)
def free(n: int) -> int:
    effect("free", n)
    return n


@app.task(name="few", queue=QUEUE, at_most=Concurrency(2, by="course"))
async def few(course: str, n: int, *, run: Run) -> int:
    effect("few-begun", course, n, run.attempt, time.time())
    await asyncio.sleep(0.05)
    effect("few-ended", course, n, run.attempt, time.time())
    return n


@app.task(name="patient", queue=QUEUE, at_most=Concurrency(2, by="course"))
async def patient(course: str, n: int, *, run: Run) -> int:
    effect("patient-begun", course, n, run.attempt)
    await until_told()
    effect("patient-ended", course, n, run.attempt)
    return n


@app.task(name="both", queue=QUEUE, limit=Limit("20/1s"), at_most=Concurrency(1, by="course"))
async def both(course: str, n: int) -> int:
    effect("both-begun", course, n)
    await asyncio.sleep(0.02)
    effect("both-ended", course, n)
    return n


@app.task(name="flaky", queue=QUEUE, at_most=Concurrency(1), retry=Retry(2, first=0.05, most=0.1))
async def flaky(failures: int, *, run: Run) -> int:
    if run.attempt <= failures:
        raise ConnectionError(f"attempt {run.attempt}")
    return run.attempt
