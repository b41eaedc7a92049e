"""`python -m benchmarks.profile errands`: where a task's time goes, by cProfile.

One worker process with the contender's own pool, where that works in threads (Errands' asyncio pool); else
Celery's solo pool, so that one process does all there is to do for a task. Times are larger than without a
profiler, but their proportions hold. For contenders that are Celery applications.
"""

from __future__ import annotations

import argparse
import json
import pstats
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contender import load
from benchmarks.stand import ROOT, Stand, stand
from benchmarks.work import EMPTY

_LEAST_MS = 0.02
_SECONDS = 600.0


def main() -> None:
    """Profile sending and working, and print what each function takes of a task's time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="of sending one by one")
    options = parser.parse_args()
    contender = load(options.contender)
    with stand(contender, contender.best) as place:
        sending, working = place.place.home / "sending.profile", place.place.home / "working.profile"
        program = f"benchmarks.programs.{contender.program}:app"
        sender = _start(
            place, sending, "benchmarks.sender", contender.program, "accept", EMPTY, str(options.seconds)
        )
        count = int(json.loads(_finished(sender))["sent"])
        worker = _start(place, working, *_worker(contender.best.workers[0], program))
        place.wait(lambda: place.tally.count() >= count, "the work", _SECONDS)
        place.wait(place.settled, "acknowledging the work", 60)
        worker.send_signal(signal.SIGTERM)
        _finished(worker)
        for title, path in (("Sending", sending), ("Working", working)):
            print(f"\n{title}: ms a task with what it calls, ms a task alone, calls a task")
            _show(path, count)


def _worker(command: Sequence[str], program: str) -> Sequence[str]:
    """The module, and its arguments, of a worker whose work is done in this very process."""
    if "asyncio" not in command:
        return "celery", "--app", program, "worker", "--pool", "solo", "-l", "WARNING"
    alone = list(command[2:])  # without "python -m"
    alone[alone.index("--processes") + 1] = "1"
    return alone


def _start(place: Stand, profile: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.profiled", str(profile), module, *arguments]
    return subprocess.Popen(command, env=place.environment, cwd=ROOT, stdout=subprocess.PIPE)


def _finished(process: subprocess.Popen[bytes]) -> bytes:
    try:
        said, _ = process.communicate(timeout=_SECONDS)
    finally:
        process.kill()
    return said


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
