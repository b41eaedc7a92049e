"""`python -m benchmarks.kits.push`: notifications stored in a second, and a broadcast to many users through
one worker: how long it takes, and how much memory the worker's processes come to at most.

On SQLite, and on PostgreSQL where ERRANDS_BENCH_POSTGRES_URL names an empty database. A tenth of the users
have a device, whose service answers at once. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from sqlalchemy import func, insert, select

from errands import Database, Keyring
from errands.core import clock
from errands.doors.local.valkey import EmbeddedValkey
from errands.kits import push
from errands.kits.push import boxes
from errands.kits.push.tables import devices, notifications

ROOT = Path(__file__).parents[2]


def main(
    users: Annotated[int, typer.Option(min=1000, help="Users of the broadcast.")] = 100_000,
    stored: Annotated[int, typer.Option(min=1000, help="Notifications that are stored.")] = 50_000,
) -> None:
    """Measure, print, and say it as JSON."""
    found: dict[str, Any] = {}
    urls = {"SQLite": "", "PostgreSQL": os.environ.get("ERRANDS_BENCH_POSTGRES_URL", "")}
    for name, url in urls.items():
        if name == "PostgreSQL" and not url:
            continue
        with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(Path(folder) / "valkey") as valkey:
            environment = {
                **os.environ, "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_HOME": folder,
                "ERRANDS_DATABASE_URL": url or f"sqlite:///{folder}/bench.db", "BENCH_USERS": str(users),
                "ERRANDS_SECRET_KEYS": Keyring.new_key(), "ERRANDS_LOG_LEVEL": "WARNING",
                "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
            }  # fmt: skip
            command = [sys.executable, "-m", "benchmarks.kits.push", "measure", str(stored), str(users)]
            told = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE)
            found[name] = json.loads(told.stdout.splitlines()[-1])
    print(f"{'':12}{'stored/s':>10}{'handed out':>12}{'all told':>10}{'pushed':>9}{'idle':>10}{'peak':>10}")
    for name, row in found.items():
        print(
            f"{name:12}{row['stored_per_s']:>10,.0f}{row['accepted_s']:>10.2f} s{row['broadcast_s']:>8.1f} s"
            f"{row['pushed']:>9,}{row['idle_mib']:>6.0f} MiB{row['peak_mib']:>6.0f} MiB"
        )
    print(json.dumps(found))


def _measure(stored: int, users: int) -> dict[str, float]:
    from benchmarks.programs.push_work import app  # it reads the settings of this run

    app.database.upgrade()
    rate = _store(app.database, stored)
    _register(app.database, app.keyring, users)
    command = [sys.executable, "-m", "errands", "worker", "--app", "benchmarks.programs.push_work:app"]
    worker = subprocess.Popen([*command, "--concurrency", "4"], stdout=subprocess.DEVNULL)
    try:
        app.tasks["send_push_notification"].delay(0, "warm", "up").get(timeout=60)
        process = psutil.Process(worker.pid)
        idle, peak, ended = _memory(process), [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.05):
                peak[0] = max(peak[0], _memory(process))

        watching = threading.Thread(target=watch)
        watching.start()
        begun = time.perf_counter()
        run = app.tasks["send_broadcast_push_notification"].delay("Hello", "all of you")
        run.get(timeout=300)
        accepted = time.perf_counter() - begun
        while (
            _count(app.database, notifications.c.title == "Hello") < users
            or _count(app.database, notifications.c.push == "pushed") < users // 10
        ):
            time.sleep(0.1)
        took = time.perf_counter() - begun
        ended.set()
        watching.join()
        pushed = _count(app.database, notifications.c.push == "pushed")
    finally:
        worker.terminate()
        worker.wait(30)
    return {
        "stored_per_s": rate, "accepted_s": accepted, "broadcast_s": took, "pushed": pushed,
        "idle_mib": idle, "peak_mib": peak[0],
    }  # fmt: skip


def _store(database: Database, count: int) -> float:
    users = [f"stored-{n}" for n in range(count)]
    begun = time.perf_counter()
    for start in range(0, count, boxes.CHUNK):
        with database.writing() as connection:
            boxes.add(
                connection, push.Notice("Stored", "x" * 100), users[start : start + boxes.CHUNK], "store"
            )
    return count / (time.perf_counter() - begun)


def _register(database: Database, keyring: Keyring, users: int) -> None:
    rows = []
    for user in range(10, users + 1, 10):
        address = keyring.seal({"token": f"token-{user}"}, f"push-device:d{user}")
        rows.append({
            "id": f"d{user}", "user_id": str(user), "kind": "fcm", "digest": str(user), "address": address,
            "created_at": clock.now(),
        })  # fmt: skip
    with database.writing() as connection:
        connection.execute(insert(devices), rows)


def _count(database: Database, where: Any) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(notifications).where(where)) or 0


def _memory(process: psutil.Process) -> float:
    """MiB of the worker and its children, shared pages counted once for each."""
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 2**20


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(_measure(*map(int, sys.argv[2:]))))
    else:
        typer.run(main)
