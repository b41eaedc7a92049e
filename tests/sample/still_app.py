"""A worker whose main thread never comes back from the first message of `hold`: it lives, no more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import signals

from errands import Errands

EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("still")


@app.task(name="hold")
async def hold() -> None: ...


@app.task(name="note")
async def note(word: str) -> None:
    with EFFECTS.open("a") as file:
        file.write(f"{word} {os.getpid()}\n")


@signals.task_received.connect
def _hold(request: Any = None, **_: Any) -> None:
    marker = EFFECTS.with_name("held")
    if request.name == "hold" and not marker.exists():
        marker.touch()
        while True:
            time.sleep(1)
