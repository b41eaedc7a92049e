"""Several `errands worker` processes under one parent, which only starts them and passes signals on.

It runs by itself (`python -m errands.doors.cli.supervisor NAME PROCESSES ARGUMENT…`) and imports neither the
application nor anything else that weighs: it stays as long as the workers do.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_FIRST_BACK_OFF, _MOST_BACK_OFF = 0.5, 10.0  # seconds before a worker that died is started again
_STEADY = 30.0  # a worker that lived so long starts its back-off afresh
SUPERVISED = "ERRANDS_SUPERVISED"


def supervise(name: str, processes: int, arguments: Sequence[str]) -> int:
    """Run `processes` workers called `name-1`, `name-2` and so on, until a signal ends them.

    TERM, INT and QUIT are passed on to each; one that dies is started again, after a pause that grows from
    half a second to ten.

    Returns:
        The exit status: 0 when all ended in order.
    """
    with _Signals() as arrived:
        workers = [_Worker(f"{name}-{number}", arguments) for number in range(1, processes + 1)]
        stopping = False
        while not stopping or any(worker.alive for worker in workers):
            for worker in workers:
                worker.look(restart=not stopping)
            for number in arrived.wait(0.2):
                stopping = True
                for worker in workers:
                    worker.send(number)
    return max((abs(worker.status) for worker in workers), default=0)


class _Worker:
    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self.name = name
        self.status = 0
        self._command = [sys.executable, "-m", "errands", "worker", *arguments, "--name", name]
        self._back_off = _FIRST_BACK_OFF
        self._start_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def look(self, *, restart: bool) -> None:
        """Start it again if it has died and its pause is over."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            self.status = self._process.returncode
            self._process = None
            if restart:
                if now - self._started_at > _STEADY:
                    self._back_off = _FIRST_BACK_OFF
                _say(f"{self.name} ended with status {self.status}; it starts again in {self._back_off:g} s")
                self._start_at = now + self._back_off
                self._back_off = min(2 * self._back_off, _MOST_BACK_OFF)
        if restart and self._process is None and now >= self._start_at:
            self._start()

    def _start(self) -> None:
        self._started_at = time.monotonic()
        # A session of its own: Ctrl-C in a terminal comes to the parent alone, which passes it on.
        self._process = subprocess.Popen(
            self._command, env={**os.environ, SUPERVISED: "1"}, start_new_session=True
        )


class _Signals:
    """The signals that arrive, as numbers to be waited for; the death of a child wakes as well."""

    _NAMES = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

    def __enter__(self) -> _Signals:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        os.set_blocking(self._reading, False)
        self._wakeup = signal.set_wakeup_fd(self._writing)
        self._before = {
            number: signal.signal(number, lambda *_: None) for number in (*self._NAMES, signal.SIGCHLD)
        }
        return self

    def wait(self, seconds: float) -> list[int]:
        """Those of the signals to be passed on that arrived within `seconds`."""
        ready, _, _ = select.select([self._reading], [], [], seconds)
        return [number for number in os.read(self._reading, 64) if number in self._NAMES] if ready else []

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)


def _say(text: str) -> None:
    sys.stderr.write(f"errands: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
