"""Tasks that do nothing, each under one rule: what is measured is what the rule costs."""

from __future__ import annotations

from errands import Concurrency, Errands, Limit, Unique

QUEUE = "rules"

app = Errands("rules", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
app.conf.worker_pool = "errands.worker.pool:TaskPool"


@app.task(name="without", queue=QUEUE, ignore_result=True)
async def without(n: int) -> None:
    pass


@app.task(name="unique", queue=QUEUE, ignore_result=True, unique=Unique())
async def unique(n: int) -> None:
    pass


@app.task(name="replace", queue=QUEUE, ignore_result=True, unique=Unique(by="n", on_conflict="replace"))
async def replace(n: int) -> None:
    pass


@app.task(name="limited", queue=QUEUE, ignore_result=True, limit=Limit("1000000/s"))
async def limited(n: int) -> None:
    pass


@app.task(name="by_key", queue=QUEUE, ignore_result=True, at_most=Concurrency(50, by="n"))
async def by_key(n: int) -> None:
    pass


@app.task(name="at_once", queue=QUEUE, ignore_result=True, at_most=Concurrency(50))
async def at_once(n: int) -> None:
    pass
