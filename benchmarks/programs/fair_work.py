"""The application that `benchmarks.fairness` measures: runs of schools that take turns."""

from __future__ import annotations

import asyncio
import os
import random
import time

from errands import Errands

SECONDS = float(os.environ.get("FAIR_SECONDS", "0.05"))
app = Errands("fair")
if os.environ.get("FAIR_POOL") == "asyncio":
    app.conf.worker_pool = "errands.worker.pool:TaskPool"


def seconds() -> float:
    """Not all the same, or a hundred runs would go on ending at the same time."""
    return SECONDS * random.uniform(0.5, 1.5)


@app.task(name="serve", queue="fair", fair_by="school_id", ignore_result=True)
def serve(school_id: int, again: bool = False) -> None:
    """Takes a while; with `again`, the same once more as soon as it is over."""
    time.sleep(seconds())
    if again:
        serve.delay(school_id, again=True)


@app.task(name="serve_on_the_loop", queue="fair", fair_by="school_id", ignore_result=True)
async def serve_on_the_loop(school_id: int, again: bool = False) -> None:
    """The same for the asyncio pool."""
    await asyncio.sleep(seconds())
    if again:
        await serve_on_the_loop.adelay(school_id, again=True)
