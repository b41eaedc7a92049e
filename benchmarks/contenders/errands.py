"""Errands as it is run in production: a worker, and a beat that moves what happens into the ledger."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.contender import Place
from benchmarks.contenders._celery import BROKER, PACKAGES, QUEUE, declare, pending
from errands import Errands, Settings
from errands.broker.events import EventStream
from errands.store import writes
from errands.store.engine import Database

HOME = Path(os.environ.get("BENCHMARK_HOME", ".errands"))

app = Errands("benchmark", settings=Settings(home=HOME, broker_url=BROKER))
TASKS = declare(app, queue=QUEUE)


class ErrandsPrefork:
    """Errands on Celery's prefork pool and its Redis transport."""

    label = "Errands"
    setup = "default settings: arguments checked, runs recorded in SQL (SQLite) by a beat; results kept"
    packages = (*PACKAGES, "pydantic", "sqlalchemy")
    order = 100

    def worker(self, processes: int) -> list[str]:
        return [*_command("worker"), "--concurrency", str(processes)]

    def companions(self) -> dict[str, list[str]]:
        return {"beat": _command("beat")}

    def sender(self, work: str) -> Callable[..., object]:
        send: Callable[..., object] = TASKS[work].delay
        return send

    def pending(self, place: Place) -> int:
        return pending(place)

    def recorded(self, place: Place) -> bool:
        # A beat leads once its tables are there.
        if not place.client.exists(app.keys.leader):
            return False
        database = Database(f"sqlite:///{place.home / 'errands.db'}")
        try:
            with database.reading() as connection:
                position = writes.read_position(connection, app.keys.events)
        finally:
            database.dispose()
        behind, _ = EventStream(place.client, app.keys.events).behind(position.entry_id, most=1)
        return behind == 0


def _command(name: str) -> list[str]:
    return [sys.executable, "-m", "errands", name, "--app", f"{__name__}:app", "--loglevel", "INFO"]


CONTENDER = ErrandsPrefork()
