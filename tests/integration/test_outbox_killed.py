"""A producer is killed between its commit and what follows, a hundred times: nothing is lost or doubled."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import cycle, islice, product
from pathlib import Path

from sqlalchemy import func, select

from errands import Errands, Settings
from errands.beat.recorder import Recorder
from errands.beat.relay import Relay
from errands.broker.events import EventStream
from errands.store import tables
from errands.store.engine import Database
from processes import SAMPLE, Worker, until

_KILLS = 100


def environment(valkey_url: str, key_prefix: str, database: Database, folder: Path) -> dict[str, str]:
    return {
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_KEY_PREFIX": key_prefix,
        "ERRANDS_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "ERRANDS_HOME": str(folder),
        "SAMPLE_EFFECTS": str(folder / "effects"),
    }


def application(valkey_url: str, key_prefix: str, database: Database, folder: Path) -> Errands:
    """The sample application as a relay sees it, which needs to know queues and tasks only by name."""
    settings = Settings(home=folder, broker_url=valkey_url, key_prefix=key_prefix)
    app = Errands("durable", settings=settings, queues=["work", "idle"], set_as_current=False)
    app.__dict__["database"] = database

    @app.task(name="noted", queue="work")
    def noted(word: str) -> None: ...

    return app


def done(folder: Path) -> Counter[str]:
    path = folder / "effects"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()


def test_a_hundred_kills_lose_nothing_and_double_nothing(
    valkey_url: str, key_prefix: str, database: Database, tmp_path: Path
) -> None:
    sys.path.insert(0, str(SAMPLE))
    from durable_app import orders

    orders.metadata.create_all(database.engine)
    told = environment(valkey_url, key_prefix, database, tmp_path)
    worker = Worker(told, tmp_path / "worker.log", "-Q", "work", "-c", "4", app="durable_app:app")
    producer = subprocess.Popen(
        [sys.executable, str(SAMPLE / "durable_app.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**told, "PYTHONPATH": str(SAMPLE.parents[1] / "src"), "PATH": ""}, text=True, bufsize=1,
    )  # fmt: skip
    try:
        assert producer.stdin is not None
        assert producer.stdout is not None
        ways = cycle(product(("sync", "async"), ("committed", "published", "anywhere")))
        for how, where in islice(ways, _KILLS):
            producer.stdin.write(f"{how} {where}\n")
            assert producer.stdout.readline() == "done\n"
        with database.reading() as connection:
            accepted = set(connection.scalars(select(orders.c.run_id)))
            unsent = set(
                connection.scalars(select(tables.outbox.c.id).where(tables.outbox.c.sent_at.is_(None)))
            )
        assert len(accepted) >= 2 * _KILLS // 3  # one, at least, for each of those killed at a point
        assert unsent <= accepted
        assert unsent
        app = application(valkey_url, key_prefix, database, tmp_path)
        while Relay(app, database, after=0).step():
            pass
        until(lambda: done(tmp_path).keys() >= accepted, 90, "every accepted run was done")
        recorder = Recorder(EventStream(app.valkey, app.keys.events), database, name=app.keys.events)

        def forgotten() -> bool:
            recorder.step()
            with database.reading() as connection:
                return connection.scalar(select(func.count()).select_from(tables.outbox)) == 0

        until(forgotten, 60, "the outbox forgets runs that have ended")
        assert done(tmp_path) == dict.fromkeys(accepted, 1)
    finally:
        producer.kill()
        producer.wait()
        worker.kill()
