"""Real worker processes for tests: started, waited for, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

SAMPLE = Path(__file__).parent / "sample"
ROOT = Path(__file__).parents[1]


def until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """Wait for `condition` to give something true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what or condition}")


def kill_limited_children(done: Callable[[], bool]) -> None:
    """Kill the processes in which this one has files opened (`errands.children`), as a system without memory
    does, until `done` says so."""

    def kill() -> bool:
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # it has ended
                if any(part.endswith("children/serve.py") for part in child.cmdline()):
                    child.kill()
        return done()

    until(kill)


class Worker:
    """A worker process of the sample app."""

    def __init__(
        self,
        environment: dict[str, str],
        log: Path,
        *options: str,
        name: str = "",
        command: tuple[str, ...] = (),
        app: str = "sample_app:app",
    ) -> None:
        self.log = log
        # Of its own: RabbitMQ gives a worker's mailbox to one of a name only.
        self.name = f"{name or 'w'}-{uuid.uuid4().hex[:8]}@test"
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "apps"), str(SAMPLE)])
        stock = (
            "-m", "celery", "-A", app, "worker", "-n", self.name, "-l", "INFO",
            "--without-gossip", "--without-mingle", *options,
        )  # fmt: skip
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *(command or stock)],
                env={**os.environ, **environment, "PYTHONPATH": path},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_ready(self, seconds: float = 60.0) -> Worker:
        """Return once the worker takes messages."""

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended:\n{self.log.read_text()[-4000:]}")
            return "ready." in self.log.read_text()

        until(ready, seconds, f"worker ready; its log: {self.log}")
        return self

    def stop(self) -> None:
        """End it in order; kill what does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its children as a crash would."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()
