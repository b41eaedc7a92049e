"""Tasks that do nothing, each under one rule: what is measured is what the rule costs."""

from __future__ import annotations

from errands import Concurrency, Errands, Limit, Run, Secret, Unique

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


@app.task(name="fair", queue=QUEUE, ignore_result=True, fair_by="tenant")
async def fair(n: int, tenant: int = 0) -> None:
    pass


@app.task(name="deadline", queue=QUEUE, ignore_result=True, deadline=3600)
async def deadline(n: int) -> None:
    pass


@app.task(name="secret", queue=QUEUE, ignore_result=True)
async def secret(n: int, token: Secret[str] = "") -> None:
    pass


@app.task(name="large", queue=QUEUE, ignore_result=True, offload=True)
async def large(n: int, text: str = "") -> None:
    pass


@app.task(name="once", queue=QUEUE, ignore_result=True)
async def once(n: int, *, run: Run) -> None:
    run.once("effect", int, n)


@app.task(name="resumed", queue=QUEUE, ignore_result=True)
async def resumed(n: int, *, run: Run) -> None:
    for _ in run.resume(range(10)):
        pass
