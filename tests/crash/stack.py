"""One system under test as real processes: a server, workers, beats, producers, and a folder for it all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import redis
from tests.crash.history import History, What
from tests.crash.systems import System

from errands.doors.local.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[2]
_PATH = os.pathsep.join(str(folder) for folder in (ROOT, ROOT / "src", ROOT / "apps"))
_LAST_WORDS = 3000
_START_SECONDS = 90.0
_STOP_SECONDS = 60.0


class Process:
    """A process of the system under test, in a group of its own, its output in a file."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.arguments = arguments
        self.environment = environment
        self.log = log
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ERRANDS_", "CELERY_", "CRASH_"))}
        self._start_of_log = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                [sys.executable, *arguments], env={**kept, "PYTHONPATH": _PATH, **environment}, cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE if name == "producer" else output,
                stderr=output, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def said(self) -> str:
        """What this process wrote into its log."""
        with self.log.open("rb") as file:
            file.seek(self._start_of_log)
            return file.read().decode(errors="replace")

    def children(self) -> list[int]:
        """The process ids of its descendants."""
        try:
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, history: History) -> None:
        """KILL the main process alone, as the kernel would when memory is short."""
        history.write(What.KILLED, pid=self.pid, note=self.name)
        self.popen.kill()
        self.popen.wait()

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> None:
        """Make sure that nothing of it is left."""
        for pid in [self.pid, *self.children()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # children whose parent was killed before
        self.popen.wait()


class Producer(Process):
    """A process that sends what it is told to."""

    def ask(self, **order: Any) -> None:
        """Give an order, and go on."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(order).encode() + b"\n")
        self.popen.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the oldest order."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise AssertionError(f"the producer ended:\n{self.said[-_LAST_WORDS:]}")
        told: dict[str, Any] = json.loads(line)
        return told

    def do(self, **order: Any) -> dict[str, Any]:
        """Give an order, and wait for its answer."""
        self.ask(**order)
        return self.answer()

    def hush(self) -> dict[str, Any]:
        """End the sending that is under way; its answer."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        return self.answer()


class Stack:
    """A server with a system on it: `with Stack(folder, StockCelery) as stack`.

    Args:
        folder: for everything.
        make: makes the system, from the server's address and a folder.
        concurrency: runs that one worker does side by side.
    """

    def __init__(self, folder: Path, make: Callable[[str, Path], System], *, concurrency: int = 4) -> None:
        self.folder = folder
        self.history = History(folder)
        self.server = EmbeddedValkey(folder / "valkey")
        self.concurrency = concurrency
        self.workers: dict[str, Process] = {}
        self.beats: dict[str, Process] = {}
        self.url = ""  # where processes started from now on find the broker
        self._make = make
        self._all: list[Process] = []
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.server)
            stack.callback(self._end)
            self.url = self.server.url
            self.client: Any = stack.enter_context(redis.Redis.from_url(self.url))
            self.system = self._make(self.url, self.folder)
            stack.callback(self.system.close)
            if self.system.beat:
                self.start_beat()
            self.producer = self.start_producer()
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self._exit.close()

    def start_worker(self, name: str = "w1", **environment: str) -> Process:
        """Start a worker; `wait_ready` returns once it takes messages."""
        queues = ["work"] if "CRASH_SPARED" in environment else ["work", "poison"]
        command = self.system.worker(name, self.concurrency, queues)
        if "CRASH_CLOCK" in environment:
            command = ["-m", "tests.crash.shifted", environment["CRASH_CLOCK"], *command]
        self.workers[name] = self._start(name, command, {"CRASH_NAME": name, **environment})
        return self.workers[name]

    def wait_ready(self, *workers: Process) -> None:
        """Wait until these workers take messages; all by default."""
        for worker in workers or tuple(self.workers.values()):
            self.until(
                lambda worker=worker: "ready." in worker.said,
                _START_SECONDS,
                f"{worker.name} is ready",
                worker,
            )

    def stop_worker(self, name: str) -> None:
        """End a worker in order, so that what it has done is acknowledged."""
        worker = self.workers.pop(name)
        if worker.running:
            worker.signal(signal.SIGTERM)
            self.until(lambda: not worker.running, _STOP_SECONDS, f"{name} has ended")

    def start_beat(self, number: int = 1, **environment: str) -> Process:
        """Start a beat."""
        name = f"beat{number}"
        self.beats[name] = self._start(name, self.system.beat_command(number), environment)
        return self.beats[name]

    def start_producer(self) -> Producer:
        """Start one more producer, and wait until it takes orders."""
        command = ["-m", "tests.crash.producer", self.system.app]
        producer = self._start("producer", command, {}, Producer)
        assert isinstance(producer, Producer)
        producer.answer()
        return producer

    def supervise(self) -> None:
        """Start again what has ended, as systemd or Kubernetes would."""
        for process in [*self.workers.values(), *self.beats.values()]:
            if not process.running:
                self._start_again(process)

    def _start_again(self, process: Process) -> None:
        again = self._start(process.name, process.arguments, process.environment)
        (self.workers if process.name in self.workers else self.beats)[process.name] = again

    def until(
        self, condition: Callable[[], Any], seconds: float, what: str, process: Process | None = None
    ) -> None:
        """Wait for a condition.

        Raises:
            AssertionError: it did not come true in time, or `process` has ended.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if process is not None and not process.running:
                raise AssertionError(f"{process.name} ended:\n{process.said[-_LAST_WORDS:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}; logs are in {self.folder}")
            time.sleep(0.02)

    @contextmanager
    def setting(self, **settings: str) -> Iterator[None]:
        """Settings of the server, inside the block."""
        before = {name: self.client.config_get(name)[name] for name in settings}
        for name, value in settings.items():
            self.client.config_set(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.client.config_set(name, value)

    def _start(
        self, name: str, arguments: list[str], environment: dict[str, str], kind: type[Process] = Process
    ) -> Process:
        surroundings = {
            **self.system.environment(self.url), "CRASH_HOME": str(self.folder), **environment,
        }  # fmt: skip
        process = kind(name, arguments, surroundings, self.folder / f"{name}.log")
        self._all.append(process)
        return process

    def _end(self) -> None:
        for process in self._all:
            process.end()
