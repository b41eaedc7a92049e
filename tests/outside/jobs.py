"""Running one job: a folder with a suite's tests, a server of its own, and pytest in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from places import ADDED, HERE, JOBS, ROOT
from server import server
from sources import Source
from suites import Arrangement

from errands.doors.local.ports import LOOPBACK

JOB_SECONDS = 1500
ENDING_SECONDS = 15
FOLDER = "t/integration/"
FINISHED = '"finished"'
# Told like a test: that nothing keeps the process of a suite from ending.
ENDS = "the process ends"
# What the surroundings say must not leak into the suites.
_LEAKING = ("ERRANDS_", "CELERY_", "REDIS_", "KOMBU_", "TEST_B", "PYTEST_", "DATABASE_URL", "C_FORCE_ROOT")
_POOL = """

# Added by Errands' outside checks: the pool of the worker that runs throughout the suite.
@pytest.fixture(scope='session')
def celery_worker_pool():
    return {pool!r}
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a test: `passed`, `failed`, `skipped`, `xfailed`, `xpassed`, or `no outcome`."""

    what: str
    seconds: float = 0.0
    error: str = ""


NO_OUTCOME = Outcome("no outcome")


@dataclass(slots=True)
class Job:
    """Part of a suite in one arrangement. `run()` may be called again, with some of its tests alone."""

    arrangement: Arrangement
    source: Source
    prefixes: tuple[str, ...]
    number: int
    left_out: tuple[str, ...] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    flaky: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ended_with: int | None = None
    runs: int = 0

    @property
    def name(self) -> str:
        return f"{'stock' if self.arrangement.is_stock else 'ours'}-{self.arrangement.name}-{self.number}"

    @property
    def folder(self) -> Path:
        return JOBS / self.name

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    def prepare(self) -> None:
        """The suite's files and ours, in an empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        tests = self.folder / "suite"
        self.source.unpack(tests)
        for file in (ADDED / self.source.name).glob("*.py"):
            shutil.copy(file, tests / FOLDER / f"test_{file.name}")
        if self.arrangement.pool:
            with (tests / FOLDER / "conftest.py").open("a") as conftest:
                conftest.write(_POOL.format(pool=self.arrangement.pool))

    def run(self, tests: tuple[str, ...] = ()) -> dict[str, Outcome]:
        """Run all of the job, or these tests alone, on an empty server, and return what came of them."""
        self.runs += 1
        report = self.folder / f"report-{self.runs}.jsonl"
        begun = time.monotonic()
        with server(self.folder / "valkey") as port:
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "recorder",
                     *(["-p", "celery.contrib.pytest"] if self.source.name == "celery" else []),
                     *(FOLDER + test for test in tests or self.prefixes)],
                    cwd=self.folder / "suite", env=self._environment(port, report),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            try:
                ended = _wait(process, report)
            finally:
                _end(process)
        self.ended_with = process.returncode
        self.seconds += time.monotonic() - begun
        outcomes = read(report)
        outcomes[ENDS] = (
            Outcome("passed") if ended else Outcome("failed", error=f"It did not; see {self.log}.")
        )
        return outcomes

    def _environment(self, port: int, report: Path) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_LEAKING)}
        url = f"redis://{LOOPBACK}:{port}/0"
        return environment | {
            "PYTHONPATH": os.pathsep.join([str(HERE / "inside"), str(ROOT / "src")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OUTSIDE_REPORT": str(report),
            "OUTSIDE_LEFT_OUT": json.dumps([FOLDER + test for test in self.left_out]),
            "OUTSIDE_TRANSPORT": self.arrangement.transport or "",
            "OUTSIDE_BACKEND": self.arrangement.backend or "",
            "WORKER_LOGLEVEL": "INFO",  # as in Celery's own CI: some tests look at the log
            "REDIS_HOST": LOOPBACK,
            "REDIS_PORT": str(port),
            "REDIS_6379_TCP": str(port),
            "TEST_BROKER": url,
            "TEST_BACKEND": url,
        }


def read(report: Path) -> dict[str, Outcome]:
    """What a report says of each test, collected or not, by its id within the suite's folder."""
    outcomes: dict[str, Outcome] = {}
    if report.exists():
        for text in report.read_text().splitlines():
            line = json.loads(text)
            for test in line.get("collected", []):
                outcomes.setdefault(_short(test), NO_OUTCOME)
            if "started" in line:
                outcomes[_short(line["started"])] = Outcome(
                    "no outcome", error="It was running when its process ended."
                )
            if "test" in line:
                test = _short(line["test"])
                if outcomes.get(test, Outcome("")).what != "failed":
                    outcomes[test] = Outcome(line["outcome"], line["seconds"], line["error"])
    return outcomes


def together(jobs: Iterable[Job]) -> dict[str, Outcome]:
    """The outcomes of several jobs; none of their processes may fail to end."""
    found: dict[str, Outcome] = {}
    for job in jobs:
        for test, outcome in job.outcomes.items():
            if test != ENDS or found.get(ENDS, outcome).what == "passed":
                found[test] = outcome
    return found


def _short(test: str) -> str:
    return test.removeprefix(FOLDER)


def _wait(process: subprocess.Popen[bytes], report: Path) -> bool:
    """Whether the process ended by itself: within its time, and soon after its last test."""
    deadline = time.monotonic() + JOB_SECONDS
    finished = False
    while time.monotonic() < deadline:
        try:
            process.wait(1)
            return True
        except subprocess.TimeoutExpired:
            if not finished and report.exists() and FINISHED in report.read_text():
                finished = True
                deadline = time.monotonic() + ENDING_SECONDS
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and the workers that it may have left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
