"""`python -m benchmarks.kits.upkeep`: how fast old rows go, and how long others wait meanwhile.

A table of 200,000 old rows is cleaned while a writer in another process inserts one row after the other, each
in a transaction of its own. For each database and way: rows deleted in a second, inserts of the writer in a
second, and its longest wait for one insert. Beside it the writer alone, and one DELETE for everything.
Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Column, Integer, MetaData, Table, Text, create_engine, delete, insert, text
from sqlalchemy.exc import OperationalError

from errands import Database, Errands, Run, Settings
from errands.core import clock
from errands.kits import upkeep
from errands.kits.upkeep import Upkeep
from errands.store.types import UtcDateTime

metadata = MetaData()
logs = Table(
    "app_logs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UtcDateTime, index=True),
    Column("text", Text),
)
OLD = timedelta(days=90)
SECONDS_ALONE = 3.0

Way = Callable[[Database], int]


def main(
    rows: Annotated[int, typer.Option(min=1000, help="Old rows.")] = 200_000,
    chunk: Annotated[int, typer.Option(min=1, help="Rows in one transaction.")] = 1000,
    postgres: Annotated[
        str, typer.Option(help="A PostgreSQL that may make a database.")
    ] = "postgresql://postgres@127.0.0.1:5432/postgres",
) -> None:
    """Measure, print, and say it as JSON."""
    ways: dict[str, Way] = {
        "the writer alone": _nothing,
        f"upkeep, chunks of {chunk:,}": lambda database: _upkeep(database, chunk),
        "one DELETE": _at_once,
    }
    found: dict[str, dict[str, float]] = {}
    print(f"{'':36}{'deleted/s':>11}{'inserts/s':>11}{'longest wait, ms':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for kind, opened in (("SQLite", _sqlite(Path(folder))), ("PostgreSQL", _postgres(postgres))):
            for name, way in ways.items():
                with opened() as url:
                    if url is None:
                        print(f"{kind}: none answers at {postgres}")
                        break
                    told = found[f"{kind}: {name}"] = _measure(url, rows, way)
                print(
                    f"{kind + ': ' + name:36}{told['deleted']:>11,.0f}{told['inserts']:>11,.0f}"
                    f"{told['longest_ms']:>18,.1f}"
                )
    print(json.dumps(found))


def _measure(url: str, rows: int, way: Way) -> dict[str, float]:
    database = Database(url)
    metadata.create_all(database.engine)
    old = clock.now() - timedelta(days=100)
    for start in range(0, rows, 20_000):
        with database.writing() as connection:
            some = range(start, min(start + 20_000, rows))
            connection.execute(
                insert(logs), [{"at": old + timedelta(seconds=n), "text": "x" * 100} for n in some]
            )
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    writer = multiprocessing.get_context("spawn").Process(target=_write, args=(url, theirs))
    writer.start()
    ours.recv()
    began = time.perf_counter()
    deleted = way(database)
    seconds = time.perf_counter() - began
    ours.send("stop")
    inserts, longest, wrote = ours.recv()
    writer.join()
    database.dispose()
    return {"deleted": deleted / seconds, "inserts": inserts / wrote, "longest_ms": 1000 * longest}


def _write(url: str, parent: Connection) -> None:
    """Inserts until the parent says something."""
    database = Database(url)
    inserts, longest = 0, 0.0
    with database.writing() as connection:
        connection.execute(insert(logs).values(at=clock.now(), text="first"))
    parent.send("ready")
    began = before = time.perf_counter()
    while not parent.poll():
        with database.writing() as connection:
            connection.execute(insert(logs).values(at=clock.now(), text="x" * 100))
        now = time.perf_counter()
        inserts, longest, before = inserts + 1, max(longest, now - before), now
    parent.send((inserts, longest, time.perf_counter() - began))
    database.dispose()


def _nothing(_: Database) -> int:
    time.sleep(SECONDS_ALONE)
    return 0


def _at_once(database: Database) -> int:
    with database.writing() as connection:
        return connection.execute(delete(logs).where(logs.c.at < clock.now() - OLD)).rowcount


def _upkeep(database: Database, chunk: int) -> int:
    app = Errands("benchmark", settings=Settings(inline=True))
    clean = Upkeep("clean", table=logs, column=logs.c.at, older_than=OLD, chunk=chunk)
    app.use(upkeep.kit([clean], database=lambda: database))
    function: Any = app.tasks["clean"].function

    async def run() -> int:
        done = await function(run=Run("benchmark", "clean"))
        await database.adispose()
        return int(done["deleted"])

    return asyncio.run(run())


def _sqlite(folder: Path) -> Any:
    @contextmanager
    def opened() -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            yield f"sqlite:///{own}/errands.db"

    return opened


def _postgres(url: str) -> Any:
    @contextmanager
    def opened() -> Iterator[str | None]:
        server = Database(url)
        engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
        name = f"errands_benchmark_{time.time_ns()}"
        try:
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
        except OperationalError:
            yield None
            return
        try:
            yield server.url.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            engine.dispose()

    return opened


if __name__ == "__main__":
    typer.run(main)
