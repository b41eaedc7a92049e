"""The application under test, on Errands. `python -m errands worker --app tests.crash.app_errands:app`."""

from __future__ import annotations

from datetime import timedelta

from tests.crash import work
from tests.crash.work import Attempt

from errands import Errands, Retry, Run

app = Errands("crash", queues=[work.QUEUE, work.POISON])
app.conf.task_default_queue = work.QUEUE
work.watch_points()


def attempt(run: Run, key: str) -> Attempt:
    return Attempt(run.id, key, run.attempt, run.task)


@app.task(name="mark", queue=work.QUEUE)
def mark(key: str, seconds: float = 0.0, *, run: Run) -> str:
    attempt(run, key).mark(seconds)
    return key


@app.task(name="amark", queue=work.QUEUE)
async def amark(key: str, seconds: float = 0.0, *, run: Run) -> str:
    await attempt(run, key).mark_async(seconds)
    return key


@app.task(name="stumble", queue=work.QUEUE, retry=Retry(3, first=0.1, most=0.2))
def stumble(key: str, gate: str, *, run: Run) -> None:
    attempt(run, key).stumble(gate)


@app.task(name="poison", queue=work.POISON)
def poison(key: str, kind: str, *, run: Run) -> None:
    attempt(run, key).poison(kind)


@app.task(name="tick", queue=work.QUEUE)
def tick(*, run: Run) -> None:
    attempt(run, f"tick-{run.id}").mark(0)


# The second version of the application renames a task, and says how it was called before.
renamed, aliases = ("old-name", ()) if work.VERSION == 1 else ("new-name", ("old-name",))


@app.task(name=renamed, queue=work.QUEUE, aliases=aliases)
def rename(key: str, seconds: float = 0.0, *, run: Run) -> str:
    attempt(run, key).mark(seconds)
    return key


if work.TICK_SECONDS:
    app.conf.beat_schedule = {"tick": {"task": "tick", "schedule": timedelta(seconds=work.TICK_SECONDS)}}
