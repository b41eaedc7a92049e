"""An application whose runs are about people, for tests of dead letters and of erasing."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from errands import Errands, Personal, Retry, Run, Secret, Subject

QUEUE = os.environ.get("SAMPLE_QUEUE", "people")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))
MENDED = Path(os.environ.get("SAMPLE_MENDED", "/nonexistent"))

app = Errands("people", queues=[QUEUE])
app.conf.task_default_queue = QUEUE


class Address(BaseModel):
    street: Personal[str]
    city: str


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


@app.task(name="letter", queue=QUEUE)
def letter(user_id: Subject[int], address: Address, text: str, *, run: Run) -> str:
    run.progress(1, 1, f"to {address.street}: {text}")
    plain.delay(f"copy of {text}")
    return f"{text} sent to {address.street}"


@app.task(name="plain", queue=QUEUE)
def plain(text: str) -> str:
    return text


@app.task(name="charge", queue=QUEUE, retry=Retry(2, first=0.05, most=0.05))
def charge(user_id: Subject[int], card: Secret[str]) -> str:
    """Fails until the file `MENDED` is there."""
    effect("charge", user_id)
    if not MENDED.exists():
        raise ConnectionError(f"the bank does not take {card} of user {user_id}")
    return "charged"


@app.task(name="once", queue=QUEUE)
def once(text: str) -> None:
    """Fails, and has one try."""
    raise RuntimeError(text)


@app.task(name="wait", queue=QUEUE)
def wait(user_id: Subject[int], gate: str) -> None:
    app.valkey.blpop([gate], timeout=60)
