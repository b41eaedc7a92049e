"""What was seen from outside of the system under test: one line of JSON a fact, appended to one file.

Several processes write to the same file. A line goes out in one `write` to a file opened for appending, which
the kernel does not mix with another, and which a KILL of the writer cannot cut.
"""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path

import msgspec


class What(StrEnum):
    """The kinds of facts."""

    ACCEPTED = "accepted"  # a producer's `.delay()` returned
    REFUSED = "refused"  # it raised: the caller knows that nothing is promised
    REVOKED = "revoked"  # somebody took a run back, and the call returned
    BEGUN = "begun"  # a task's body began
    EFFECT = "effect"  # it did what it is for
    ENDED = "ended"  # it is about to return
    RAISED = "raised"  # it raised an error of its own, which is an end as well
    KILLED = "killed"  # a process is about to be killed
    FAULT = "fault"  # the fault begins
    HEALED = "healed"  # what the fault took away is there again


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was seen. `at` is in seconds of the monotonic clock that all processes share."""

    what: What
    at: float
    run: str = ""
    key: str = ""
    task: str = ""
    attempt: int = 0
    pid: int = 0
    worker: str = ""
    note: str = ""
    seconds: float = 0.0


def now() -> float:
    """Seconds of a clock that all processes of this machine share, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class History:
    """The file of facts, and beside it a store of keys that takes each key once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._path = folder / "history.jsonl"
        self._keys = folder / "keys"
        self._keys.mkdir(exist_ok=True)
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Fact)

    def write(self, what: What, **details: object) -> None:
        """Append a fact, with the time and this process's id."""
        fact = Fact(what=what, **{"at": now(), "pid": os.getpid(), **details})
        line = self._encoder.encode(fact) + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{self._path}: half a line was written; is the disk full?")
        finally:
            os.close(descriptor)

    def once(self, key: str) -> bool:
        """Do what is safe to repeat: True for the first caller with this key, False for all others."""
        try:
            os.close(os.open(self._keys / key, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def keys(self) -> set[str]:
        """The keys that were taken by `once`."""
        return {path.name for path in self._keys.iterdir()}

    def read(self, start: int = 0) -> list[Fact]:
        """All facts behind the first `start` bytes, in the order in which they were written."""
        return self.tail(start)[0]

    def tail(self, start: int) -> tuple[list[Fact], int]:
        """Those facts, and where the next ones will begin."""
        if not self._path.exists():
            return [], start
        with self._path.open("rb") as file:
            file.seek(start)
            whole, newline, _ = file.read().rpartition(b"\n")
        facts = [self._decoder.decode(line) for line in whole.split(b"\n") if line]
        return facts, start + len(whole) + len(newline)

    @property
    def size(self) -> int:
        """Bytes written so far: where a later `read` may start."""
        return self._path.stat().st_size if self._path.exists() else 0
