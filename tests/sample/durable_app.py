"""An application whose runs are durable, and a producer that is killed. It is told all by environment.

Run as a program it reads orders, one a line: how to send, and where to die. Each is carried out by a child of
its own, which is gone when `done` is answered.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import Column, MetaData, Table, Text, insert

from errands import Errands, Retry, Run

EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("durable", queues=["work", "idle"])
orders = Table("app_orders", MetaData(), Column("run_id", Text, primary_key=True))


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in words) + "\n")


@app.task(name="noted", queue="work")
def noted(word: str, *, run: Run) -> None:
    effect(run.id, word)


@app.task(name="patient", queue="work")
async def patient(go: str, *, run: Run) -> None:
    """Runs until the file `go` is there."""
    effect("begun", run.id)
    while not Path(go).exists():
        await asyncio.sleep(0.05)
    effect(run.id, "patient")


@app.task(name="stumble", queue="work", retry=Retry(3, first=3, most=3, jitter=False))
def stumble(*, run: Run) -> int:
    """Its first attempt fails."""
    effect("attempt", run.id, run.attempt)
    if run.attempt == 1:
        raise ConnectionError("stumbled")
    effect(run.id, "stumbled")
    return run.attempt


@app.task(name="weigh", queue="work", offload=True)
async def weigh(course: int, rows: list[str], *, run: Run) -> int:
    effect(run.id, "weighed", len(rows))
    return len(rows)


# -- the producer


def die(*_: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def send_for_ever() -> None:
    while True:
        with app.database.session() as session:
            run_id = noted.delay_on_commit(session, "sync")
            session.execute(insert(orders).values(run_id=run_id))
            if random.random() < 0.2:
                session.flush()
                session.rollback()


async def asend_for_ever() -> None:
    while True:
        async with app.database.async_session() as session:
            run_id = noted.delay_on_commit(session, "async")
            await session.execute(insert(orders).values(run_id=run_id))


def child(how: str, where: str) -> NoReturn:
    from errands.store import outbox

    if where == "committed":
        app.publish_committed = die  # type: ignore[method-assign]
    elif where == "published":
        outbox.mark_sent = die  # type: ignore[assignment]
    asyncio.run(asend_for_ever()) if how == "async" else send_for_ever()
    raise AssertionError("it ends by being killed")


def main() -> None:
    import errands.store.outbox  # noqa: F401 - the children share it

    for line in sys.stdin:
        how, where = line.split()
        pid = os.fork()
        if pid == 0:
            try:
                child(how, where)
            finally:
                os._exit(1)
        if where == "anywhere":
            time.sleep(random.uniform(0.02, 0.2))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print("done" if os.WIFSIGNALED(status) else "failed", flush=True)


if __name__ == "__main__":
    main()
