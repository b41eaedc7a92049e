"""`python -m benchmarks.kits.messaging`: how long it takes to accept messages to 100 and to 100,000 numbers,
and how exact the limit is over three workers.

Accepting is what an endpoint does: the body is read and checked, and one run is sent; over HTTP, as long as
the client waited. The limit is 100 in 6 s; what was given is read from the server's own log (MONITOR). On
SQLite, and on PostgreSQL where ERRANDS_BENCH_POSTGRES_URL names an empty database. Prints a table, and JSON
as its last line.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import redis
import typer
from fastapi import FastAPI

from errands import Errands
from errands.doors.local.valkey import EmbeddedValkey
from errands.kits import messaging

ROOT = Path(__file__).parents[2]
MODULE = "benchmarks.kits.messaging"
MOST, PERIOD = 100, 6.0
_JSON = {"Content-Type": "application/json"}


def __getattr__(name: str) -> Any:
    if name == "app":  # the workers'
        return _app()
    if name == "api":  # the web process's
        return _api()
    raise AttributeError(name)


def _app() -> Errands:
    app = Errands("bench", queues=["messaging"])
    app.use(messaging.kit(tasks=True, limit=f"{MOST}/{PERIOD:.0f}s"))
    app.conf.task_default_queue = "messaging"
    return app


def _api() -> FastAPI:
    app, api = _app(), FastAPI()
    app.finalize()

    @api.post("/api/send-bulk-messages", status_code=202)
    async def send(asked: messaging.BulkRequest) -> dict[str, Any]:
        run = await app.tasks["send_bulk_messages"].adelay(asked.phone_numbers, asked.message)
        return {"task_id": run.id, "status": "queued", "recipients": len(asked.phone_numbers)}

    return api


def main(
    requests: Annotated[int, typer.Option(min=3, help="Requests of 100 numbers.")] = 50,
    runs: Annotated[int, typer.Option(min=1, help="Runs of 100 messages, over three workers.")] = 5,
) -> None:
    """Measure, print, and say it as JSON."""
    found: dict[str, float] = {}
    urls = {"SQLite": "", "PostgreSQL": os.environ.get("ERRANDS_BENCH_POSTGRES_URL", "")}
    for name, url in urls.items():
        if name == "PostgreSQL" and not url:
            continue
        with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "valkey") as valkey:
            environment = {
                **os.environ, "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_HOME": folder,
                "ERRANDS_DATABASE_URL": url or f"sqlite:///{folder}/bench.db", "ERRANDS_LOG_LEVEL": "WARNING",
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            }  # fmt: skip
            os.environ.update({k: v for k, v in environment.items() if k.startswith("ERRANDS_")})
            app = _app()
            app.database.upgrade()
            for numbers, times in ((100, requests), (100_000, 5)):
                for what, seconds in _accepted(environment, numbers, times).items():
                    found[f"{numbers:,} numbers accepted, {name}: {what}"] = seconds * 1000
            app.valkey.flushall()
            if name == "SQLite":
                found |= _limited(app, environment, valkey.url, runs)
    for name, value in found.items():
        print(f"{name:60}{value:>10,.1f}")
    print(json.dumps(found))


def _accepted(environment: dict[str, str], numbers: int, times: int) -> dict[str, float]:
    """Seconds of requests with so many numbers each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["-m", "uvicorn", f"{MODULE}:api", "--port", str(port), "--log-level", "warning"]
    body = {"phone_numbers": [f"+49170{n:07}" for n in range(numbers)], "message": "Closed on Friday"}
    content = json.dumps(body).encode()
    server = subprocess.Popen([sys.executable, *command], env=environment, cwd=ROOT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _until_answers(client)
            seconds = []
            for _ in range(times + 1):
                begun = time.perf_counter()
                answer = client.post("/api/send-bulk-messages", content=content, headers=_JSON)
                seconds.append(time.perf_counter() - begun)
                assert answer.status_code == 202, answer.text
    finally:
        server.terminate()
        server.wait()
    # The first one meets what is not loaded yet.
    return {"median ms": statistics.median(seconds[1:]), "slowest ms": max(seconds[1:])}


def _until_answers(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.get("/")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the web process does not answer")


def _limited(app: Errands, environment: dict[str, str], url: str, runs: int) -> dict[str, float]:
    """Messages of `runs` runs over three workers: the most in a window, and how much of it was used."""
    given: list[tuple[float, int]] = []
    used = app.keys.limit("rate:messages:")

    def watch() -> None:
        # It ends with the server.
        with suppress(redis.ConnectionError), redis.Redis.from_url(url).monitor() as monitor:  # type: ignore[no-untyped-call]
            for command in monitor.listen():
                words = command["command"].split()
                if words[:3] == ["HINCRBY", used, "used"] and int(words[3]) > 0:
                    given.append((command["time"], int(words[3])))

    threading.Thread(target=watch, daemon=True).start()
    command = [
        "-m",
        "errands",
        "worker",
        "--app",
        f"{MODULE}:app",
        "--pool",
        "asyncio",
        "--concurrency",
        "10",
    ]
    workers = [subprocess.Popen([sys.executable, *command], env=environment, cwd=ROOT) for _ in range(3)]
    try:
        task = app.tasks["send_bulk_messages"]
        ids = [
            task.delay([f"+4917{run}{n:07}" for n in range(100)], "Closed on Friday").id
            for run in range(runs)
        ]
        while not all(run.final for run in app.live.get_many(ids).values()):
            time.sleep(0.1)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
    sent = len(messaging.ConsoleMessenger(app.settings.home / "messages.jsonl").lines())
    took = given[-1][0] - given[0][0]
    return {
        f"messages sent, at {MOST} in {PERIOD:.0f} s over 3 workers": sent,
        "the most that were given in any window": _most(given),
        "share of the limit that was used, %": 100 * (sent - MOST) / (took / PERIOD * MOST),
    }


def _most(given: list[tuple[float, int]]) -> int:
    most = first = inside = 0
    for at, count in given:
        inside += count
        while given[first][0] <= at - PERIOD:
            inside -= given[first][1]
            first += 1
        most = max(most, inside)
    return most


if __name__ == "__main__":
    typer.run(main)
