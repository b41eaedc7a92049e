"""Loops that are resumed, effects that are done once, work that is cancelled. Told all by environment."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from errands import Deliveries, Errands, Retry, Run
from errands.deliveries import Bounced, Delivery, Outcome, Recipient, Sent

QUEUE = os.environ.get("SAMPLE_QUEUE", "work")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("work", queues=[QUEUE])
app.conf.task_default_queue = QUEUE


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, os.getpid())) + "\n")


async def rows(n: int) -> AsyncIterator[int]:
    for number in range(1, n + 1):
        yield number


@app.task(name="work_off")
async def work_off(n: int, every: float, stop_at: int, go: str, *, run: Run) -> int:
    """At the row `stop_at` it waits for the file `go`."""
    done = 0
    async for number in run.resume(rows(n), key=int, every=every, total=n):
        if number == stop_at:
            effect("waits", number)
            while not Path(go).exists():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        effect("row", number)
        done += 1
    return done


@app.task(name="work_off_plainly")
def work_off_plainly(n: int, every: float, stop_at: int, go: str, *, run: Run) -> int:
    done = 0
    for number in run.resume(range(1, n + 1), key=int, every=every):
        if number == stop_at:
            effect("waits", number)
            while not Path(go).exists():
                time.sleep(0.01)
        effect("row", number)
        done += 1
    return done


@app.task(name="work_on")
async def work_on(*, run: Run) -> None:
    """Rows without an end; each takes a moment."""
    number = run.checkpoint() or 0
    effect("goes-on-after", number)
    async for number in run.resume(rows(10**6), key=int, every=60):
        effect("row", number)
        await asyncio.sleep(0.02)


@app.task(name="fail_at", retry=Retry(1, first=0.05, most=0.1))
def fail_at(n: int, bad: int, *, run: Run) -> None:
    for number in run.resume(range(1, n + 1), key=int, every=60):
        effect("row", number)
        if number == bad and run.attempt == 1:
            raise ConnectionError("once")


@app.task(name="limited", retry=Retry(1, first=0.05, most=0.1), soft_time_limit=1, time_limit=20)
def limited(n: int, *, run: Run) -> None:
    for number in run.resume(range(1, n + 1), key=int, every=60):
        effect("row", number)
        if number == 3 and run.attempt == 1:
            while True:
                time.sleep(0.01)


@app.task(name="pay", retry=Retry(1, first=0.05, most=0.1))
async def pay(go: str, *, safe: bool = False, run: Run) -> dict[str, Any]:
    charge = run.effect("charge", safe_to_repeat=safe)

    async def gateway(key: str) -> dict[str, Any]:
        effect("charged", key)
        while not Path(go).exists():
            await asyncio.sleep(0.01)
        return {"receipt": key}

    receipt: dict[str, Any] = await charge.once(gateway, charge.key)
    effect("paid", receipt["receipt"])
    return receipt


@app.task(name="pay_and_wait")
def pay_and_wait(go: str, *, run: Run) -> str:
    """Charges, and is at something else then."""
    receipt: str = run.once("charge", lambda: effect("charged") or "receipt")
    effect("waits")
    while not Path(go).exists():
        time.sleep(0.01)
    return receipt


@app.task(name="clocked")
async def clocked(*, run: Run) -> None:
    effect("clocked", run.id, time.monotonic())


@app.task(name="tell")
async def tell(*, run: Run) -> None:
    """Tells its progress until somebody says that it is not wanted."""
    done = 0
    effect("begun", run.id)
    try:
        while True:
            done += 1
            try:
                run.progress(done)
                await asyncio.sleep(0.01)
            except Exception as error:  # as careless code does
                effect("swallowed", type(error).__name__)
    finally:
        effect("cleaned", run.id)


@app.task(name="tell_plainly")
def tell_plainly(*, run: Run) -> None:
    effect("begun", run.id)
    try:
        while True:
            try:
                run.check()
                time.sleep(0.01)
            except Exception as error:
                effect("swallowed", type(error).__name__)
    finally:
        effect("cleaned", run.id)


@app.task(name="tell_in_a_group")
async def tell_in_a_group(*, run: Run) -> None:
    async def one(n: int) -> None:
        while True:
            run.progress(n)
            await asyncio.sleep(0.01)

    effect("begun", run.id)
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(one(n))
    finally:
        effect("cleaned", run.id)


@app.task(name="ask_nothing")
async def ask_nothing(go: str, *, run: Run) -> str:
    effect("begun", run.id)
    while not Path(go).exists():
        await asyncio.sleep(0.01)
    effect("done", run.id)
    return "done"


@app.task(name="note", retry=Retry(5, first=0.05, most=0.1))
def note(word: str, fail: bool = False) -> None:
    effect("noted", word)
    if fail:
        raise ConnectionError("again")


@app.task(name="send_to_all", retry=Retry(1, first=0.05, most=0.1))
async def send_to_all(n: int, stop_at: int, go: str, *, run: Run, deliveries: Deliveries) -> dict[str, int]:
    """Four at once; from the position `stop_at` on each waits for the file `go`, or until the worker stops.
    Every 100th is refused until there is a file `mended`."""

    async def send(row: Delivery) -> Outcome:
        if row.position >= stop_at and not Path(go).exists():
            effect("waits", row.position)
            while not (Path(go).exists() or run.stopping):
                await asyncio.sleep(0.01)
        if row.position % 100 == 99 and not Path(go).with_name("mended").exists():
            return Bounced("550 no such user")
        effect("sent", row.position)
        return Sent()

    await deliveries.begin(run, "mail", range(n), read=lambda n: Recipient(f"p{n}@example.com"))
    return (await deliveries.deliver(run, send, at_once=4)).as_dict()
