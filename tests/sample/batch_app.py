"""Members of batches, and what follows them, for tests with real workers. Told all by environment."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from errands import BatchStatus, Discard, Errands, Retry, Run, Snooze

QUEUE = os.environ.get("SAMPLE_QUEUE", "batches")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("batches", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
if os.environ.get("SAMPLE_POOL") == "asyncio":
    app.conf.worker_pool = "errands.worker.pool:TaskPool"


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in words) + "\n")


@app.task(name="report", queue=QUEUE)
def report(n: int, gate: str = "") -> int:
    effect("report", gate or "-", n)
    while gate and not Path(gate).exists():
        time.sleep(0.02)
    return n


@app.task(name="areport", queue=QUEUE)
async def areport(n: int, gate: str = "") -> int:
    effect("report", gate or "-", n)
    while gate and not Path(gate).exists():
        await asyncio.sleep(0.02)
    return n


@app.task(name="refuse", queue=QUEUE)
def refuse() -> None:
    raise Discard("not this one")


@app.task(name="flaky", queue=QUEUE, retry=Retry(2, first=0.05, most=0.1))
def flaky(*, run: Run) -> int:
    if run.attempt < 2:
        raise ConnectionError("not yet")
    return run.attempt


@app.task(name="snoozes", queue=QUEUE)
def snoozes(mark: str) -> None:
    if not Path(mark).exists():
        Path(mark).touch()
        raise Snooze(0.05)


@app.task(name="spreads", queue=QUEUE)
def spreads(count: int, *, run: Run) -> None:
    assert run.batch is not None
    with run.batch:
        for n in range(count):
            report.delay(1000 + n)


@app.task(name="announce", queue=QUEUE)
def announce(term: int, outcome: BatchStatus) -> None:
    effect("announce", outcome.id, term, outcome.state, outcome.total)


@app.task(name="tidy", queue=QUEUE)
async def tidy(outcome: BatchStatus) -> dict[str, Any]:
    effect("tidy", outcome.id, outcome.state, outcome.total, outcome.done, outcome.failed)
    return {"failed": list(outcome.failed_ids)}


@app.task(name="add", queue=QUEUE)
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="total", queue=QUEUE)
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="dies_in_the_block", queue=QUEUE)
def dies_in_the_block(batch_id: str) -> None:
    """Its process dies while it sends; the next attempt goes on with the same batch."""
    again = app.batches.status(batch_id) is not None
    with app.batch("resumed", id=batch_id, on_success=announce.s(term=5), on_complete=tidy.s()):
        for n in range(10):
            report.apply_async((n,), task_id=f"{batch_id}-{n}")
            if n == 5 and not again:
                os.kill(os.getpid(), signal.SIGKILL)
