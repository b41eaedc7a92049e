"""Tasks that a pool of workers must run as Celery promises. Told all by environment, as `sample_app` is."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from celery import current_app, current_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import task_postrun, task_prerun, worker_process_init, worker_process_shutdown

from errands import Errands, Retry, Run
from errands.worker.pool.job import isolate

QUEUE = os.environ.get("SAMPLE_QUEUE", "pool")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("pool", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
if os.environ.get("SAMPLE_POOL") == "asyncio":
    app.conf.worker_pool = "errands.worker.pool:TaskPool"

colour: ContextVar[str] = ContextVar("colour", default="none")


def effect(*words: object) -> None:
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, os.getpid())) + "\n")


class Keeper:
    """A resource that lives as long as the process."""

    def __init__(self) -> None:
        effect("keeper-made")

    async def aclose(self) -> None:
        effect("keeper-closed", id(asyncio.get_running_loop()))


app.provide(Keeper, Keeper, scope="process")


@worker_process_init.connect
def _began(**_: Any) -> None:
    effect("process-began")


@worker_process_shutdown.connect
def _over(**_: Any) -> None:
    effect("process-over")


@task_prerun.connect
def _before(task: Any = None, **_: Any) -> None:
    if task.name == "signalled":
        effect("prerun", task.request.id)


@task_postrun.connect
def _after(task: Any = None, state: str = "", **_: Any) -> None:
    if task.name == "signalled":
        effect("postrun", task.request.id, state)


@app.task(name="add", queue=QUEUE)
async def add(x: int, y: int) -> int:
    await asyncio.sleep(0.005)
    return x + y


@app.task(name="plain_add", queue=QUEUE)
def plain_add(x: int, y: int) -> int:
    return x + y


@app.task(name="total", queue=QUEUE)
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="meet", queue=QUEUE)
async def meet(folder: str, n: int, of: int) -> int:
    """Ends when as many as `of` are here at the same time."""
    (Path(folder) / str(n)).touch()
    while len(list(Path(folder).iterdir())) < of:
        await asyncio.sleep(0.01)
    return n


@app.task(name="meet_plainly", queue=QUEUE)
def meet_plainly(folder: str, n: int, of: int) -> int:
    (Path(folder) / str(n)).touch()
    while len(list(Path(folder).iterdir())) < of:
        time.sleep(0.01)
    return n


@app.task(name="boom", queue=QUEUE)
async def boom() -> None:
    await asyncio.sleep(0)
    raise ValueError("boom")


@app.task(name="again", queue=QUEUE, bind=True, max_retries=2)
async def again(self: Any, upto: int) -> int:
    """Celery's own way to retry."""
    await asyncio.sleep(0)
    if self.request.retries < upto:
        raise self.retry(countdown=0.05, exc=KeyError("again"))
    return int(self.request.retries)


@app.task(name="again_by_itself", queue=QUEUE, bind=True, autoretry_for=(KeyError,), max_retries=2,
          default_retry_delay=0, retry_backoff=False)  # fmt: skip
async def again_by_itself(self: Any, upto: int) -> int:
    await asyncio.sleep(0)
    if self.request.retries < upto:
        raise KeyError("again")
    return int(self.request.retries)


@app.task(name="flaky", queue=QUEUE, retry=Retry(2, first=0.05, most=0.1))
async def flaky(failures: int, *, run: Run) -> int:
    if run.attempt <= failures:
        raise ConnectionError(f"attempt {run.attempt}")
    return run.attempt


@app.task(name="soft_caught", queue=QUEUE, soft_time_limit=0.3, time_limit=30)
async def soft_caught() -> str:
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        await asyncio.sleep(0)
        return "a part"
    return "the whole"


@app.task(name="soft", queue=QUEUE, soft_time_limit=0.3, time_limit=30)
async def soft() -> None:
    await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))


@app.task(name="soft_plain", queue=QUEUE, soft_time_limit=0.3, time_limit=30)
def soft_plain() -> str:
    try:
        while True:
            time.sleep(0.01)
    except SoftTimeLimitExceeded:
        return "a part"


@app.task(name="hard", queue=QUEUE, soft_time_limit=0.2, time_limit=0.4)
async def hard() -> None:
    while True:
        try:
            await asyncio.sleep(60)
        except SoftTimeLimitExceeded:
            continue


@app.task(name="hard_plain", queue=QUEUE, soft_time_limit=0.2, time_limit=0.4)
def hard_plain() -> None:
    while True:
        try:
            time.sleep(0.01)
        except SoftTimeLimitExceeded:
            continue


@app.task(name="stubborn", queue=QUEUE, soft_time_limit=0.2, time_limit=0.3)
async def stubborn(go: str) -> str:
    """Swallows its cancellation until the file `go` is there."""
    while not Path(go).exists():
        try:
            await asyncio.sleep(0.05)
        except BaseException as error:
            effect("swallowed", type(error).__name__)
    effect("gone-on")
    return "whatever"


@app.task(name="long", queue=QUEUE, bind=True)
async def long(self: Any, word: str) -> str:
    effect("begun", word)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        effect("cleaned", word)
        raise
    return word


@app.task(name="until", queue=QUEUE)
async def until(go: str, word: str) -> str:
    effect("begun", word)
    while not Path(go).exists():
        await asyncio.sleep(0.01)
    effect("done", word)
    return word


@app.task(name="until_plainly", queue=QUEUE)
def until_plainly(go: str, word: str) -> str:
    effect("begun", word)
    while not Path(go).exists():
        time.sleep(0.01)
    effect("done", word)
    return word


@app.task(name="early", queue=QUEUE, acks_late=False)
async def early(go: str, word: str) -> str:
    effect("begun", word)
    while not Path(go).exists():
        await asyncio.sleep(0.01)
    return word


@app.task(name="who", queue=QUEUE, bind=True)
async def who(self: Any) -> list[str]:
    async def child() -> str:
        await asyncio.sleep(0.01)
        return str(self.request.id)

    first = self.request.id
    await asyncio.sleep(0.01)
    second = self.request.id
    return [first, second, *await asyncio.gather(child(), child()), current_task.request.id]


@app.task(name="where", queue=QUEUE, bind=True)
def where(self: Any) -> list[Any]:
    before, _ = colour.get(), colour.set("blue")
    return [self.request.id, threading.current_thread().name, before, current_app.main]


@app.task(name="replaced", queue=QUEUE, bind=True)
async def replaced(self: Any, x: int) -> int:
    await asyncio.sleep(0)
    raise self.replace(add.s(x, 100))


@app.task(name="sends", queue=QUEUE)
async def sends(x: int) -> str:
    return str(add.delay(x, 1).id)


@app.task(name="timed", queue=QUEUE)
async def timed() -> str:
    try:
        async with asyncio.timeout(0.02):
            await asyncio.sleep(60)
    except TimeoutError:
        return "in time"
    return "late"


@app.task(name="cancels_itself", queue=QUEUE)
async def cancels_itself() -> None:
    raise asyncio.CancelledError


@app.task(name="leaves", queue=QUEUE)
async def leaves(*, run: Run) -> int:
    if run.attempt == 1:
        sys.exit(3)
    return run.attempt


@app.task(name="signalled", queue=QUEUE)
async def signalled() -> str:
    await asyncio.sleep(0)
    return "told"


@app.task(name="holds_up", queue=QUEUE)
async def holds_up(seconds: float) -> str:
    time.sleep(seconds)
    return "over"


@app.task(name="keeps", queue=QUEUE)
async def keeps(*, keeper: Keeper) -> list[int]:
    return [id(keeper), id(asyncio.get_running_loop())]


@app.task(name="progresses", queue=QUEUE)
async def progresses(*, run: Run) -> str:
    run.progress(1, 2, "half")
    return "done"


@app.task(name="alone", queue=QUEUE)
async def alone(word: str) -> bool:
    effect("asks", word)
    while EFFECTS.read_text().count("asks ") < 2:  # who comes after one that asked is held until it has ended
        await asyncio.sleep(0.01)
    granted = isolate_here()
    effect("alone-begins", word)
    await asyncio.sleep(0.1)
    effect("alone-ends", word)
    return granted


def isolate_here() -> bool:
    return isolate(20)


@app.task(name="rated", queue=QUEUE, rate_limit="2/h")
async def rated(n: int) -> int:
    return n


@app.task(name="spins_in_parts", queue=QUEUE, soft_time_limit=1, time_limit=30)
async def spins_in_parts() -> str:
    try:
        while True:  # it never gives the loop to others
            sum(range(1000))
    except SoftTimeLimitExceeded:
        return "a part"


@app.task(name="spins", queue=QUEUE, soft_time_limit=1, time_limit=2)
async def spins() -> None:
    while True:
        try:
            while True:
                sum(range(1000))
        except Exception:
            pass


@app.task(name="stuck_plainly", queue=QUEUE, time_limit=0.5)
def stuck_plainly() -> None:
    """In code that nothing can interrupt, as a library's call without a time-out is."""
    time.sleep(600)


@app.task(name="stuck", queue=QUEUE, time_limit=1)
async def stuck() -> None:
    time.sleep(600)  # code that nothing in Python can interrupt


@app.task(name="waits_for", queue=QUEUE)
async def waits_for(path: str, *, run: Run) -> int:
    effect("waits", run.id)
    while not Path(path).exists():
        await asyncio.sleep(0.02)
    return run.attempt


@app.task(name="has_a_second", queue=QUEUE, deadline=1.5)
async def has_a_second() -> str:
    try:
        await asyncio.sleep(600)
    except SoftTimeLimitExceeded:
        return "a part"
    return "all of it"


@app.task(name="has_a_second_in_a_thread", queue=QUEUE, deadline=1.5)
def has_a_second_in_a_thread() -> str:
    try:
        while True:
            time.sleep(0.05)
    except SoftTimeLimitExceeded:
        return "a part"
