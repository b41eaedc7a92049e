"""A contender's stand: its own server, folder, tally and processes, gone without a trace afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from benchmarks.contender import BenchmarkError, Contender, Place
from benchmarks.work import Tally
from errands.doors.local.valkey import EmbeddedValkey, find_server

ROOT = Path(__file__).parents[1]
_POLL_SECONDS = 0.005
_LAST_WORDS = 2_000


class Stand:
    """Where one contender is measured. Made by `stand(…)`."""

    def __init__(self, name: str, contender: Contender, place: Place) -> None:
        self.name = name
        self.contender = contender
        self.place = place
        self.tally = Tally(place.home / "tally")
        self.companions: list[int] = []
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        # The settings of whoever starts the benchmark are not part of it.
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("ERRANDS_", "CELERY_"))
        }
        self.environment = {
            **kept,
            "BENCHMARK_BROKER_URL": place.url,
            "BENCHMARK_HOME": str(place.home),
            "BENCHMARK_TALLY": str(self.tally.path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        }

    @contextmanager
    def running(self, name: str, command: Sequence[str]) -> Iterator[int]:
        """Runs a command inside the block, its output in a file; its process id."""
        log = self.place.home / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        self._processes.append((process, log))
        try:
            yield process.pid
        finally:
            self._processes.remove((process, log))
            _end(process)

    def call(self, *arguments: str) -> Any:
        """What `python -m benchmarks.sender <this contender> …` measured."""
        command = [sys.executable, "-m", "benchmarks.sender", self.name, *arguments]
        done = subprocess.run(
            command, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise BenchmarkError(f"{self.contender.label} cannot send: {done.stderr[-_LAST_WORDS:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def wait(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for `condition`.

        Raises:
            BenchmarkError: it did not come true in time, or one of the processes ended.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            for process, log in self._processes:
                if process.poll() is not None:
                    words = log.read_text(errors="replace")[-_LAST_WORDS:]
                    raise BenchmarkError(f"{self.contender.label}: {log.stem} ended by itself:\n{words}")
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.contender.label}: {what} took more than {seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def settled(self) -> bool:
        """Whether the broker holds nothing any more."""
        return self.contender.pending(self.place) == 0

    def recorded(self) -> bool:
        """Whether the contender's own record is complete."""
        return self.contender.recorded(self.place)


@contextmanager
def stand(name: str, contender: Contender) -> Iterator[Stand]:
    """A fresh stand with the contender's companions running; its worker is the caller's to start."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        valkey = stack.enter_context(EmbeddedValkey(home / "valkey"))
        client = stack.enter_context(redis.Redis.from_url(valkey.url))
        made = Stand(name, contender, Place(valkey.url, home, client))
        for companion, command in contender.companions().items():
            made.companions.append(stack.enter_context(made.running(companion, command)))
        made.wait(made.recorded, "the start of its companions", 60)
        yield made


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once and with all children: whatever was to be measured is settled, and nothing is kept."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def server_version() -> str:
    """The name and version of the server that every contender gets one of."""
    answer = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    # "Valkey server v=9.1.0 sha=…"
    name, _, rest = answer.partition(" server v=")
    return f"{name} {rest.split()[0]}"
