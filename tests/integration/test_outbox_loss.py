"""The broker loses its data while durable runs wait, run, are due later, and are between two attempts."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from errands import Errands, Retry, Run, Settings
from errands.beat.service import BeatService
from errands.core.states import State
from errands.doors.local.valkey import EmbeddedValkey
from errands.store import reads
from errands.store.engine import Database
from errands.store.rows import RunRow
from processes import Worker, until


class System:
    """A broker of its own, a worker, a beat in this process, and an application that sends durable runs."""

    def __init__(self, folder: Path, database: Database, server: EmbeddedValkey) -> None:
        self.folder, self.database, self.server = folder, database, server
        self.go = folder / "go"
        settings = Settings(home=folder, broker_url=server.url, outbox_after=0.5)
        self.app = app = Errands("durable", settings=settings, queues=["work", "idle"], set_as_current=False)
        app.__dict__["database"] = database

        @app.task(name="noted", queue="work")
        def noted(word: str, *, run: Run) -> None: ...

        @app.task(name="patient", queue="work")
        async def patient(go: str, *, run: Run) -> None: ...

        @app.task(name="stumble", queue="work", retry=Retry(3))
        def stumble(*, run: Run) -> int: ...

        self.beat = BeatService(app)
        self.workers: list[Worker] = []

    def work(self, queues: str) -> Worker:
        environment = {
            "ERRANDS_BROKER_URL": self.server.url,
            "ERRANDS_DATABASE_URL": self.database.url.render_as_string(hide_password=False),
            "ERRANDS_HOME": str(self.folder),
            "SAMPLE_EFFECTS": str(self.folder / "effects"),
        }
        log = self.folder / f"worker-{len(self.workers)}.log"
        command = (
            "-m", "errands", "worker", "--app", "durable_app:app", "--pool", "asyncio", "-Q", queues,
            "-c", "10", "-n", f"w{len(self.workers)}@test",
        )  # fmt: skip
        worker = Worker(environment, log, command=command)
        self.workers.append(worker)
        return worker.wait_until_ready()

    def send(self, task: str, *args: object, **options: object) -> str:
        with self.app.database.session() as session:
            return str(self.app.tasks[task].apply_on_commit(session, args, **options))

    def lines(self, first: str) -> list[list[str]]:
        path = self.folder / "effects"
        words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [rest for start, *rest in words if start == first]

    def done(self, run_ids: list[str]) -> Counter[str]:
        return Counter({run_id: len(self.lines(run_id)) for run_id in run_ids})

    def row(self, run_id: str) -> RunRow | None:
        with self.database.reading() as connection:
            return reads.run(connection, run_id)

    def succeeded(self, run_ids: list[str]) -> bool:
        rows = [self.row(run_id) for run_id in run_ids]
        return all(row is not None and row.state is State.SUCCEEDED for row in rows)


@contextmanager
def running(folder: Path, database: Database) -> Iterator[System]:
    with EmbeddedValkey(folder / "valkey") as server:
        system = System(folder, database, server)
        system.beat.start()
        try:
            yield system
        finally:
            system.beat.stop()
            for worker in system.workers:
                worker.kill()


def data_of(server: EmbeddedValkey) -> Path:
    return server.directory / "appendonlydir"


def emptied(system: System) -> None:
    with redis.Redis.from_url(system.server.url) as client:
        client.flushall()


def restarted_empty(system: System) -> None:
    system.server.kill()
    shutil.rmtree(data_of(system.server))
    system.server.start()


def restored(system: System) -> None:
    """As it was before anything was sent."""
    system.server.kill()
    shutil.rmtree(data_of(system.server))
    shutil.copytree(system.folder / "backup", data_of(system.server))
    system.server.start()


@pytest.mark.parametrize("lose", [emptied, restarted_empty, restored])
def test_all_durable_runs_are_done_after_the_broker_lost_everything(
    lose: Callable[[System], None], sqlite_database: Database, tmp_path: Path
) -> None:
    with running(tmp_path, sqlite_database) as system:
        system.work("work")
        warm = system.send("noted", "warm")
        until(lambda: system.succeeded([warm]), what="the system works")
        shutil.copytree(data_of(system.server), tmp_path / "backup")
        at_work = system.send("patient", str(system.go))
        until(lambda: system.lines("begun"), what="it began")
        waits = [system.send("noted", f"n{n}", queue="idle") for n in range(20)]
        later = [system.send("noted", "later", countdown=8) for _ in range(5)]
        between = system.send("stumble")
        until(lambda: (row := system.row(between)) and row.state is State.RETRYING, what="it stumbled")

        lose(system)
        system.go.touch()
        every = [at_work, *waits, *later, between]
        system.work("idle")
        until(lambda: system.succeeded(every), 90, "all of them succeeded")
        assert system.done(every) == dict.fromkeys(every, 1)
        row = system.row(between)
        assert row is not None
        assert row.attempt == 2  # attempts go on counting
        assert system.lines("attempt") == [[between, "1"], [between, "2"]]
        until(lambda: not sent_rows(system), what="the outbox forgets them")


def test_what_the_last_moments_of_the_file_held_is_sent_again(
    sqlite_database: Database, tmp_path: Path
) -> None:
    """A crash of the machine takes what was not on disk: the newest runs, while the others are known."""
    with running(tmp_path, sqlite_database) as system:
        system.work("work")
        old = [system.send("noted", f"n{n}", queue="idle") for n in range(5)]
        (newest,) = data_of(system.server).glob("*.incr.aof")
        until(lambda: grows_no_more(newest, old[-1]), what="they are in the file")
        length = newest.stat().st_size
        new = [system.send("noted", f"n{n}", queue="idle") for n in range(5)]
        until(lambda: grows_no_more(newest, new[-1]), what="the new ones are in the file, too")
        system.server.kill()
        os.truncate(newest, length)
        system.server.start()
        system.work("idle")
        until(lambda: system.succeeded(old + new), 90, "all of them succeeded")
        assert system.done(old + new) == dict.fromkeys(old + new, 1)


def test_a_worker_that_died_with_the_broker_does_not_hold_its_runs_back(
    sqlite_database: Database, tmp_path: Path
) -> None:
    with running(tmp_path, sqlite_database) as system:
        first = system.work("work")
        run_id = system.send("patient", str(system.go))
        until(lambda: (row := system.row(run_id)) and row.state is State.RUNNING, what="the ledger has it")
        first.kill()
        restarted_empty(system)
        system.go.touch()
        system.work("work")
        until(lambda: system.succeeded([run_id]), 90, "it was done by another worker")
        row = system.row(run_id)
        assert row is not None
        assert row.attempt == 2
        with system.database.reading() as connection:
            outcomes = [attempt.outcome for attempt in reads.attempts(connection, run_id)]
        assert outcomes == ["lost", "succeeded"]


def sent_rows(system: System) -> int:
    with system.database.reading() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM errands_outbox").scalar_one())


def grows_no_more(file: Path, text: str) -> bool:
    return text.encode() in file.read_bytes()
