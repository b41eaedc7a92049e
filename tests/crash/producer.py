"""A process that sends: `python -m tests.crash.producer MODULE:APP`, told what by lines of JSON on its input.

It answers each line with one of its own. A line that comes while it sends ends the sending.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.crash import work
from tests.crash.history import What, now

_CHUNK = 50


class Producer:
    """Sends the runs of one application, and writes down which of them were accepted."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.history = work.history()

    def send(
        self, task: str, prefix: str, first: int, count: int, args: list[Any], rate: float | None,
        options: dict[str, Any],
    ) -> dict[str, int]:  # fmt: skip
        """Send `count` runs with keys of their own, one call each."""
        told = {"accepted": 0, "refused": 0}
        for number in range(first, first + count):
            if _interrupted():
                break
            key = f"{prefix}-{number}"
            started = now()
            try:
                run = self._sent(task, [key, *args], options)
            except Exception as exc:
                took = round(now() - started, 3)
                self.history.write(
                    What.REFUSED, key=key, note=f"{type(exc).__name__}: {exc}"[:300], seconds=took
                )
                told["refused"] += 1
            else:
                took = round(now() - started, 3)
                self.history.write(What.ACCEPTED, run=run, key=key, task=task, seconds=took)
                told["accepted"] += 1
            if rate:
                time.sleep(max(0.0, 1 / rate - (now() - started)))
        return told

    def send_many(self, task: str, prefix: str, count: int, args: list[Any]) -> dict[str, int]:
        """Send `count` runs in bulk, where the system can; what a call returned for is accepted."""
        many = getattr(self.app.tasks[task], "delay_many", None)
        if many is None:
            return self.send(task, prefix, 0, count, args, None, {})
        told = {"accepted": 0}
        for keys in _chunks([f"{prefix}-{number}" for number in range(count)]):
            runs = many([(key, *args) for key in keys])
            for key, run in zip(keys, runs, strict=True):
                self.history.write(What.ACCEPTED, run=getattr(run, "id", run), key=key, task=task)
            told["accepted"] += len(keys)
        return told

    def revoke(self, runs: list[str]) -> dict[str, int]:
        """Take runs back."""
        for run in runs:
            self._revoke(run)
            self.history.write(What.REVOKED, run=run)
        return {"revoked": len(runs)}

    def _sent(self, task: str, args: list[Any], options: dict[str, Any]) -> str:
        if task in self.app.tasks:
            return str(self.app.tasks[task].apply_async(args, **options).id)
        return str(self.app.send_task(task, args, queue=work.QUEUE, **options).id)

    def _revoke(self, run: str) -> None:
        if not hasattr(self.app, "live"):
            self.app.control.revoke(run)
            return
        from errands.ops.access import Person
        from errands.ops.actions import Actions

        Actions(self.app).revoke(Person("crash", frozenset({"admin"})), run)


def _interrupted() -> bool:
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _CHUNK):
        yield keys[start : start + _CHUNK]


def main() -> None:
    module, _, name = sys.argv[1].partition(":")
    producer = Producer(getattr(importlib.import_module(module), name))
    producer.app.finalize()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    # Unbuffered, so that `select` sees each line that was not read yet.
    while line := os.read(0, 2**16):
        for words in line.splitlines():
            if words.strip():
                order: dict[str, Any] = json.loads(words)
                print(json.dumps(getattr(producer, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    main()
