"""`python -m benchmarks.fairness`: does the large tenant delay the small one?

Ten runs of a small school are sent again and again: on idle workers; on workers that a large school keeps
busy without any backlog; beside 50,000 waiting runs of the large school. What is measured is the time from
the sending of a run to its start, and to its end, by the record of the run itself. Prints a table, and JSON
as its last line.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from errands import Errands, Settings
from errands.broker import pause, queues, workers
from errands.doors.local.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[1]
QUEUE = "fair"
LARGE, SMALL = 1, 2
# Pool, its slots, seconds that a run takes, the task.
POOLS = {"prefork": (8, 0.05, "serve"), "asyncio": (100, 0.2, "serve_on_the_loop")}


def main(
    runs: Annotated[int, typer.Option(min=100, help="Waiting runs of the large school.")] = 50_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often the small school sends its ten.")] = 20,
    pool: Annotated[list[str] | None, typer.Option(help="prefork, asyncio; repeatable.")] = None,
) -> None:
    """Measure, print, and say it as JSON."""
    found = {}
    for name in pool or list(POOLS):
        with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder)) as valkey:
            found[name] = _measure(name, valkey.url, Path(folder), runs, rounds)
        print(f"{name}: {POOLS[name][0]} slots, {POOLS[name][1] * 1000:g} ms a run; ms from sending to start")
        for row in ("idle", "busy", "beside"):
            told = found[name][row]
            print(
                f"  {row:7} p50 {told['p50']:8.1f}   p95 {told['p95']:8.1f}"
                f"   to the end p50 {told['end p50']:8.1f}   p95 {told['end p95']:8.1f}"
            )
        print(f"  beside {runs:,} waiting runs: p95 {found[name]['ratio']:.2f} times that of busy workers,")
        print(f"  and to the end {found[name]['end ratio']:.2f} times that of idle ones")
    print(json.dumps(found))


def _measure(pool: str, url: str, folder: Path, runs: int, rounds: int) -> dict[str, Any]:
    slots, seconds, task = POOLS[pool]
    app = Errands("fair", settings=Settings(broker_url=url, home=folder))

    @app.task(name=task, queue=QUEUE, fair_by="school_id", ignore_result=True)
    def serve(school_id: int, again: bool = False) -> None: ...

    def small() -> dict[str, float]:
        run_ids: list[str] = []
        for _ in range(rounds):
            sent = serve.delay_many([(SMALL,)] * 10)
            _times(app, sent, "started_at")
            run_ids += sent
        starts, ends = _cuts(_times(app, run_ids, "started_at")), _cuts(_times(app, run_ids, "finished_at"))
        return {"p50": starts[9], "p95": starts[18], "end p50": ends[9], "end p95": ends[18]}

    def depth() -> queues.QueueDepth:
        return queues.depths(app.valkey, app.keys, [QUEUE])[QUEUE]

    with _worker(app, pool, slots, seconds, url, folder):
        result: dict[str, Any] = {"idle": small()}
        serve.delay_many([(LARGE, True)] * slots)
        _until(lambda: depth().held >= slots, "all slots are taken")
        result["busy"] = small()
        pause.pause(app.valkey, app.keys, QUEUE)
        serve.delay_many([(LARGE,)] * runs, chunk=100)
        pause.resume(app.valkey, app.keys, QUEUE)
        _until(lambda: depth().held >= slots, "all slots are taken again")
        result["beside"] = small()
        result["left"] = depth().depth
        queues.purge(app.valkey, app.keys, QUEUE)
    result["ratio"] = round(result["beside"]["p95"] / result["busy"]["p95"], 2)
    result["end ratio"] = round(result["beside"]["end p95"] / result["idle"]["end p95"], 2)
    app.close()
    return result


def _times(app: Errands, run_ids: list[str], moment: str) -> list[float]:
    """Milliseconds from the sending to that moment, of each."""

    def all_told() -> list[Any]:
        found = [run.facts for run in app.live.get_many(run_ids).values()]
        return found if sum(moment in facts for facts in found) == len(run_ids) else []

    facts = _until(all_told, f"all {len(run_ids)} runs of the small school have {moment}")
    return [1000 * (each[moment] - each["queued_at"]) for each in facts]


def _cuts(times: list[float]) -> list[float]:
    return [round(cut, 1) for cut in statistics.quantiles(sorted(times), n=20, method="inclusive")]


@contextmanager
def _worker(app: Errands, pool: str, slots: int, seconds: float, url: str, folder: Path) -> Iterator[None]:
    environment = {
        **os.environ, "ERRANDS_BROKER_URL": url, "ERRANDS_HOME": str(folder), "FAIR_SECONDS": str(seconds),
        "FAIR_POOL": pool,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "celery", "-A", "benchmarks.programs.fair_work:app", "worker", "-Q", QUEUE,
        "-c", str(slots), "--without-gossip", "--without-mingle",
    ]  # fmt: skip
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _until(
                lambda: process.poll() is not None or workers.alive(app.valkey, app.keys), "a worker is ready"
            )
            if process.poll() is not None:
                raise SystemExit((folder / "worker.log").read_text())
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _until(condition: Callable[[], Any], what: str, seconds: float = 600.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds:g} s: {what}")
        time.sleep(0.01)
    return found


if __name__ == "__main__":
    typer.run(main)
