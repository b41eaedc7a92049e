"""`python -m benchmarks.rules`: what a rule costs, beside the same task without it.

For each row: sends in a second (one by one, and in bulk), calls of the server for each of them, runs that one
worker of the asyncio pool drains in a second, calls of the server for each of these, and the worker's
milliseconds of processor time for each. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import typer

from errands import Errands, Keyring
from errands.broker.queues import depths
from errands.doors.local.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[1]
PROGRAM = "benchmarks.programs.rules_work"


def _numbers(n: int) -> Iterable[tuple[Any, ...]]:
    return ((i,) for i in range(n))


class Row(NamedTuple):
    """A task of `programs/rules_work.py`, the arguments of its calls, and what its processes are told."""

    name: str
    task: str
    calls: Callable[[int], Iterable[tuple[Any, ...]]] = _numbers
    environment: Callable[[], dict[str, str]] = dict


ROWS = [
    Row("without a rule", "without"),
    Row("unique", "unique"),
    Row("unique, 9 of 10 are duplicates", "unique", lambda n: ((i // 10,) for i in range(n))),
    Row("replace, 9 of 10 are duplicates", "replace", lambda n: ((i // 10,) for i in range(n))),
    Row("a rate that is never reached", "limited"),
    Row("50 at once, never reached", "by_key"),
    Row("50 at once, always reached", "at_once"),
    Row("ten tenants", "fair", lambda n: ((i, i % 10) for i in range(n))),
    Row("a deadline", "deadline"),
    Row("a secret", "secret", lambda n: ((i, "open sesame") for i in range(n))),
    Row("signed", "without", environment=lambda: {"ERRANDS_SIGNING_KEYS": Keyring.new_key()}),
    Row("100 KB kept apart", "large", lambda n: ((i, "x" * 100_000) for i in range(n))),
    Row("an effect that is done once", "once"),
    Row("a loop of ten rows, resumed", "resumed"),
]


def main(
    runs: Annotated[int, typer.Option(min=100, help="Calls of each row.")] = 20_000,
    only: Annotated[str, typer.Option(help="Rows whose name holds this.")] = "",
) -> None:
    """Measure, print, and say it as JSON."""
    found = {row.name: _apart(row, runs) for row in ROWS if only in row.name}
    print(
        f"{'':34}{'sends/s':>10}{'bulk/s':>10}{'calls/send':>12}{'drained/s':>11}{'calls/run':>11}{'ms/run':>9}"
    )
    for name, told in found.items():
        print(
            f"{name:34}{told['sends']:>10,.0f}{told['bulk']:>10,.0f}{told['calls']:>12.2f}{told['drained']:>11,.0f}"
            f"{told['calls_of_runs']:>11.2f}{told['ms_of_runs']:>9.2f}"
        )
    print(json.dumps(found))


def _apart(row: Row, runs: int) -> dict[str, float]:
    """Measure a row on a server of its own, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as valkey:
        environment = {
            **os.environ, "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_HOME": folder,
            "ERRANDS_SECRET_KEYS": Keyring.new_key(), **row.environment(),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.rules", "measure", row.name, str(runs)]
        told = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        found: dict[str, float] = json.loads(told.splitlines()[-1])
        return found


def _measure(name: str, runs: int) -> dict[str, float]:
    from benchmarks.programs.rules_work import QUEUE, app

    row = next(row for row in ROWS if row.name == name)
    task = app.tasks[row.task]
    app.database.upgrade()  # where effects and large arguments are kept
    task.delay(-1)  # the first one makes connections
    before, began = _calls(app), time.perf_counter()
    for call in row.calls(runs):
        task.delay(*call)
    sends, calls = runs / (time.perf_counter() - began), (_calls(app) - before) / runs
    app.valkey.flushall()
    began = time.perf_counter()
    ids = set(task.delay_many(row.calls(runs)))
    bulk = runs / (time.perf_counter() - began)
    before = _calls(app)
    seconds, looks, busy = _drain(app, QUEUE)
    return {
        "sends": sends, "bulk": bulk, "calls": calls, "drained": len(ids) / seconds,
        "calls_of_runs": (_calls(app) - before - looks) / len(ids), "ms_of_runs": 1000 * busy / len(ids),
    }  # fmt: skip


def _calls(app: Errands) -> int:
    stats: Any = app.valkey.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def _drain(app: Errands, queue: str) -> tuple[float, int, float]:
    """Seconds from the first start to the moment at which nothing waits or is held; calls to find out; the
    worker's seconds of processor time."""
    looks = 0

    def waiting() -> tuple[int, int]:
        nonlocal looks
        looks += 1
        found = depths(app.valkey, app.keys, [queue])[queue]
        return found.depth, found.held

    command = [
        sys.executable, "-m", "celery", "-A", f"{PROGRAM}:app", "worker", "-Q", queue, "-c", "100",
        "--without-gossip", "--without-mingle", "-l", "ERROR",
    ]  # fmt: skip
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        full = waiting()
        began, busy = _until(lambda: waiting() != full), _busy(worker)
        return _until(lambda: not any(waiting())) - began, looks, _busy(worker) - busy
    finally:
        worker.terminate()
        worker.wait()


def _busy(worker: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(worker.pid).cpu_times()
    return float(times.user + times.system)


def _until(condition: Callable[[], Any]) -> float:
    """When `condition` came true."""
    while not condition():
        time.sleep(0.005)
    return time.perf_counter()


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(_measure(sys.argv[2], int(sys.argv[3]))))
    else:
        typer.run(main)
