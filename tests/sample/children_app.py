"""An application whose tasks make calls in child processes."""

from __future__ import annotations

import os
from pathlib import Path

from errands import Errands
from errands.children import Children, LimitReached, Limits

QUEUE = os.environ["SAMPLE_QUEUE"]
NOTES = Path(os.environ["SAMPLE_NOTES"])

app = Errands("children", queues=[QUEUE])
children = Children("children", Limits(memory=128 * 1024 * 1024), size=2)


@app.task(name="child_pid", queue=QUEUE)
def child_pid() -> list[int]:
    """The worker's process and its child's."""
    return [os.getpid(), children.call("child_work:pid")]


@app.task(name="child_bomb", queue=QUEUE)
def child_bomb() -> str:
    try:
        children.call("child_work:memory_bomb")
    except LimitReached as error:
        return error.limit
    return "none"


@app.task(name="child_pid_async", queue=QUEUE)
async def child_pid_async() -> list[int]:
    return [os.getpid(), await children.acall("child_work:pid")]


@app.task(name="child_busy", queue=QUEUE)
def child_busy() -> None:
    """Note the child, and have it hold on to the interpreter."""
    noted = children.call("child_work:pid")
    (NOTES / str(os.getpid())).write_text(str(noted))
    children.call("child_work:sleep_holding_the_interpreter")


@app.task(name="child_slow", queue=QUEUE, soft_time_limit=1)
def child_slow() -> None:
    (NOTES / "slow").write_text(str(children.call("child_work:pid")))
    children.call("child_work:sleep", 600)
