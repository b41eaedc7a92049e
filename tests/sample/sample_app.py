"""A small application for tests that need real worker processes. It is told all by environment."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from errands import Discard, Errands, Retry, Run, Secret, Snooze

QUEUE = os.environ.get("SAMPLE_QUEUE", "sample")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("sample", queues=[QUEUE, f"{QUEUE}-default"])
app.conf.task_default_queue = f"{QUEUE}-default"


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, os.getpid())) + "\n")


@app.task(name="add", queue=QUEUE, aliases=("plus",))
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="about", queue=QUEUE, bind=True)
async def about(self: Any, *, run: Run) -> dict[str, Any]:
    await asyncio.sleep(0)

    async def child() -> str:
        return str(self.request.id)

    first, second = await asyncio.gather(child(), child())
    loop = id(asyncio.get_running_loop())
    return {
        "run": run.id,
        "request": self.request.id,
        "children": [first, second],
        "loop": loop,
        "pid": os.getpid(),
    }


@app.task(name="flaky", queue=QUEUE, retry=Retry(2, first=0.05, most=0.1))
async def flaky(failures: int, *, run: Run) -> int:
    if run.attempt <= failures:
        raise ConnectionError(f"attempt {run.attempt}")
    return run.attempt


@app.task(name="snoozed", queue=QUEUE)
def snoozed(mark: str, *, run: Run) -> int:
    if not Path(mark).exists():
        Path(mark).touch()
        raise Snooze(0.05)
    return run.attempt


@app.task(name="partial", queue=QUEUE, soft_time_limit=1, time_limit=20)
async def partial() -> str:
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        return "partial result"
    return "whole result"


@app.task(name="stubborn", queue=QUEUE, soft_time_limit=1, time_limit=2)
def stubborn() -> None:
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            continue


@app.task(name="incomplete", queue=QUEUE, retry=Retry(3))
def incomplete() -> None:
    raise Discard("the course is not complete")


@app.task(name="reset", queue=QUEUE, retry=Retry(0))
def reset(email: str, token: Secret[str]) -> str:
    effect("reset", token)
    raise RuntimeError(f"no account for {token}")


@app.task(name="deadly", queue=QUEUE)
def deadly() -> None:
    effect("deadly")
    os._exit(3)


@app.task(name="dies_once", queue=QUEUE)
def dies_once(*, run: Run) -> int:
    effect("dies_once", run.attempt)
    if run.attempt == 1:
        os._exit(3)
    return run.attempt


@app.task(name="steps", queue=QUEUE)
def steps(count: int, *, run: Run) -> int:
    for n in range(1, count + 1):
        run.progress(n, count, f"step {n}")
    return count


@app.task(name="patient", queue=QUEUE)
def patient(go: str, n: int | str) -> int | str:
    """Runs until the file `go` is there."""
    effect("begun", n)
    while not Path(go).exists():
        time.sleep(0.05)
    effect("done", n)
    return n


@app.task(name="lasting", queue=QUEUE)
async def lasting(n: int | str) -> None:
    """Runs until somebody ends it."""
    effect("begun", n)
    await asyncio.sleep(3600)


@app.task(name="stumble", queue=QUEUE, retry=Retry(3, first=0.1, most=0.2))
def stumble(go: str, *, run: Run) -> int:
    """Its first attempt waits for the file `go`, and fails."""
    effect("stumble", run.attempt)
    if run.attempt == 1:
        while not Path(go).exists():
            time.sleep(0.05)
        raise ConnectionError("stumbled")
    return run.attempt


@app.task(name="noted", queue=QUEUE)
def noted(word: str) -> str:
    effect("noted", word)
    return word


@app.task(name="follow", queue=QUEUE)
def follow(word: str, *, run: Run) -> str:
    noted.apply_async((word,), task_id=run.child_id("noted"))
    noted.apply_async((word,), task_id=run.child_id("noted"))
    return run.child_id("noted")
