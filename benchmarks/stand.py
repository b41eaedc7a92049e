"""A contender's stand: its own server, folder, tally and processes, gone without a trace afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from benchmarks import environments
from benchmarks.contender import PROCESSES, BenchmarkError, Contender, NotThere, Place, Setting
from benchmarks.observe import results_kept, waiting
from benchmarks.program import ABSENT
from benchmarks.work import Tally
from errands.doors.local.valkey import EmbeddedValkey, find_server

ROOT = environments.ROOT
_POLL_SECONDS = 0.005
_LAST_WORDS = 2_000
_SENDING_SECONDS = 600.0
# The settings of whoever starts the benchmark are not part of it.
_NOT_OURS = ("ERRANDS_", "CELERY_", "BENCHMARK_", "PYTHONPATH", "VIRTUAL_ENV")


class Stand:
    """Where one contender is measured. Made by `stand(…)`."""

    def __init__(self, contender: Contender, setting: Setting, place: Place, *, results: bool) -> None:
        self.contender = contender
        self.setting = setting
        self.place = place
        self.results = results
        self.tally = Tally(place.home / "tally")
        self.workers: list[int] = []
        self.companions: list[int] = []
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_OURS)}
        if postgres := os.environ.get("BENCHMARK_POSTGRES_URL"):
            kept["BENCHMARK_POSTGRES_URL"] = postgres
        self.environment = {
            **kept,
            "BENCHMARK_BROKER_URL": place.url,
            "BENCHMARK_HOME": str(place.home),
            "BENCHMARK_TALLY": str(self.tally.path),
            "BENCHMARK_RESULTS": "1" if results else "0",
            "BENCHMARK_SETTING": setting.name,
            "BENCHMARK_PROCESSES": str(PROCESSES),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
        }

    @contextmanager
    def working(self) -> Iterator[None]:
        """The worker runs inside the block, whose processes are `workers`."""
        with ExitStack() as stack:
            for number, command in enumerate(self.setting.workers):
                self.workers.append(stack.enter_context(self.running(f"worker-{number}", command)))
            try:
                yield
            finally:
                self.workers.clear()

    @contextmanager
    def running(self, name: str, command: Sequence[str]) -> Iterator[int]:
        """Runs a command inside the block, its output in a file; its process id."""
        program, *arguments = command
        log = self.place.home / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [environments.executable(self.contender.environment, program), *arguments],
                env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self._processes.append((process, log))
        try:
            yield process.pid
        finally:
            self._processes.remove((process, log))
            _end(process)

    def send(self, what: str, task: str, amount: float) -> Any:
        """What `python -m benchmarks.sender` measured for this contender; see there."""
        python = environments.python(self.contender.environment)
        command = [str(python), "-m", "benchmarks.sender", self.contender.program, what, task, str(amount)]
        try:
            done = subprocess.run(
                command, env=self.environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True,
                text=True, check=False, timeout=_SENDING_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self.contender.label}: sending took too long") from None
        if done.returncode == ABSENT:
            raise NotThere(done.stderr.strip())
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
        """Whether the broker holds no message any more, given out or not."""
        return sum(waiting(self.place.client, key) for key in self.contender.queues) == 0

    def stored(self) -> int:
        """How many results are kept."""
        return results_kept(self.place.client, self.contender.results)

    def recorded(self) -> bool:
        """Whether the contender's own record is complete."""
        return self.contender.recorded(self.place)


@contextmanager
def stand(contender: Contender, setting: Setting, *, results: bool = True) -> Iterator[Stand]:
    """A fresh stand with the setting's companions running; its worker is the caller's to start.

    Args:
        contender: who is measured.
        setting: how it is set up.
        results: whether results are to be kept.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        valkey = stack.enter_context(EmbeddedValkey(home / "valkey"))
        client = stack.enter_context(redis.Redis.from_url(valkey.url))
        made = Stand(contender, setting, Place(valkey.url, home, client), results=results)
        for companion, command in setting.companions.items():
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
