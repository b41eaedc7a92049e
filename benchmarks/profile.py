"""`python -m benchmarks.profile errands`: where a task's time goes, by cProfile.

The worker runs in Celery's solo pool, so that one process does all there is to do for a task; times are
larger than without a profiler, but their proportions hold. For contenders that are Celery applications.
"""

from __future__ import annotations

import argparse
import pstats
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.contender import load
from benchmarks.sender import WARM_UP
from benchmarks.stand import ROOT, Stand, stand
from benchmarks.work import ARGUMENTS

_LEAST_MS = 0.05


def main() -> None:
    """Profile sending and working, and print what each function takes of a task's time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender")
    parser.add_argument("--tasks", type=int, default=1_500)
    options = parser.parse_args()
    count = options.tasks + WARM_UP
    with stand(options.contender, load(options.contender)) as place:
        sending, working = place.place.home / "sending.profile", place.place.home / "working.profile"
        module = f"benchmarks.contenders.{options.contender}"
        _finish(
            _start(place, sending, "benchmarks.sender", options.contender, ARGUMENTS.name, str(options.tasks))
        )
        worker = _start(place, working, "celery", "--app", f"{module}:app", "worker", "--pool", "solo")
        place.wait(lambda: place.tally.count() >= count, "the work", 600)
        place.wait(place.settled, "acknowledging the work", 60)
        worker.send_signal(signal.SIGTERM)
        _finish(worker)
        for title, path in (("Sending", sending), ("Working", working)):
            print(f"\n{title}: ms a task with what it calls, ms a task alone, calls a task")
            _show(path, count)


def _start(place: Stand, profile: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", module, *arguments]
    return subprocess.Popen(command, env=place.environment, cwd=ROOT, stdout=subprocess.DEVNULL)


def _finish(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(300)
    finally:
        process.kill()


def _show(path: Path, count: int) -> None:
    stats: Any = pstats.Stats(str(path))
    rows = [
        (1000 * total / count, 1000 * alone / count, calls / count, where)
        for where, (_, calls, alone, total, _) in stats.stats.items()
    ]
    for total, alone, calls, (file, line, function) in sorted(rows, reverse=True):
        # What is called less than once a task belongs to the start.
        if total >= _LEAST_MS and calls > 0.95:
            place = file.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/")
            print(f"{total:8.3f} {alone:8.3f} {calls:8.1f}  {place}:{line} {function}")


if __name__ == "__main__":
    main()
