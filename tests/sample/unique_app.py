"""Unique tasks for tests that need other processes: workers, and callers at the same time.

`python unique_app.py race N THREADS` waits for a line, then sends from N threads, and prints the ids.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from errands import Errands, Unique

QUEUE = os.environ.get("SAMPLE_QUEUE", "unique")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("unique", queues=[QUEUE])
app.conf.task_default_queue = QUEUE


def effect(*words: object) -> None:
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in words) + "\n")


@app.task(name="work", queue=QUEUE, unique=Unique(by="n"))
def work(n: int, note: str = "") -> int:
    effect("work", n, note)
    return n


@app.task(name="held", queue=QUEUE, unique=Unique(by="n"))
def held(n: int, gate: str) -> int:
    """Ends when the file `gate` is there."""
    effect("begun", n, os.getpid())
    while not Path(gate).exists():
        time.sleep(0.02)
    return n


@app.task(name="index", queue=QUEUE, unique=Unique(by="n", on_conflict="debounce", wait=1.0))
def index(n: int, text: str) -> str:
    effect("index", n, text, time.time())
    return text


@app.task(name="newest", queue=QUEUE, unique=Unique(by="n", on_conflict="replace"))
def newest(n: int, text: str) -> str:
    effect("newest", n, text)
    return text


@app.task(name="total", queue=QUEUE, unique=Unique())
def total(numbers: list[int]) -> int:
    return sum(numbers)


def race(n: int, threads: int) -> None:
    app.finalize()
    ids: list[str] = []
    gate = threading.Barrier(threads + 1)

    def send() -> None:
        gate.wait()
        ids.append(work.delay(n).id)

    callers = [threading.Thread(target=send) for _ in range(threads)]
    for caller in callers:
        caller.start()
    print("ready", flush=True)
    sys.stdin.readline()
    gate.wait()
    for caller in callers:
        caller.join()
    print(*ids, flush=True)


if __name__ == "__main__" and sys.argv[1:2] == ["race"]:
    race(int(sys.argv[2]), int(sys.argv[3]))
