"""What a commit leaves in the outbox is sent in bulk, by its own process or by the relay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import QueueNotFound
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from errands import Errands, InvalidArguments, Settings
from errands.beat.relay import Relay
from errands.doors.local.ports import free_port
from errands.store import outbox, tables
from errands.store.engine import Database


def app_on(url: str, folder: Path, prefix: str, database: Database) -> Errands:
    settings = Settings(
        home=folder, broker_url=url, key_prefix=prefix,
        database_url=database.url.render_as_string(hide_password=False),
    )  # fmt: skip
    app = Errands("on-commit", settings=settings, queues=["celery", "letters"], set_as_current=False)
    app.__dict__["database"] = database

    @app.task(name="greet", queue="letters")
    def greet(name: str) -> None: ...

    return app


def left(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).where(tables.outbox.c.sent_at.is_(None))) or 0


def sent(app: Errands) -> int:
    return int(app.valkey.xlen(f"{app.settings.key_prefix}q:letters:normal"))


def calls_of_the_script(app: Errands) -> int:
    stats: Any = app.valkey.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def test_all_runs_of_a_commit_go_in_one_call(
    valkey_url: str, tmp_path: Path, key_prefix: str, database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, database)
    greet = app.tasks["greet"]
    greet.delay("warm up")
    before = calls_of_the_script(app)
    with app.acting_as("7"), app.database.session() as session:
        ids = [greet.delay_on_commit(session, f"n{n}") for n in range(100)]
    assert calls_of_the_script(app) - before == 1
    assert (sent(app), left(database)) == (101, 0)
    runs = app.live.get_many(ids)
    assert [runs[run_id].facts["args"] for run_id in ids] == [[f"n{n}"] for n in range(100)]
    assert {run.facts["owner"] for run in runs.values()} == {"7"}


async def test_the_same_with_asyncio(
    valkey_url: str, tmp_path: Path, key_prefix: str, database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, database)
    async with app.database.async_session() as session:
        for n in range(3):
            app.tasks["greet"].delay_on_commit(session, f"n{n}")
    assert (sent(app), left(database)) == (3, 0)


def test_the_relay_sends_what_a_broker_that_was_away_left_behind(
    valkey_url: str, tmp_path: Path, key_prefix: str, database: Database
) -> None:
    away = app_on(f"redis://127.0.0.1:{free_port()}/0", tmp_path, key_prefix, database)
    with away.database.session() as session:
        ids = [away.tasks["greet"].delay_on_commit(session, f"n{n}") for n in range(20)]
    app = app_on(valkey_url, tmp_path, key_prefix, database)
    app.tasks["greet"].delay("warm up")
    before = calls_of_the_script(app)
    # Its process had sent one of them, and died before it could say so.
    app.publish_outbox(outbox.rows(database, ids[:1]))
    assert Relay(app, database, after=0).step() == 20
    assert calls_of_the_script(app) - before == 2
    assert (sent(app), left(database)) == (21, 0)


def test_a_row_that_cannot_be_sent_stays_and_holds_up_nobody(
    valkey_url: str, tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, sqlite_database)
    with pytest.raises(QueueNotFound, match="'nowhere'"), app.database.session() as session:
        app.tasks["greet"].apply_on_commit(session, ("bad",), queue="nowhere", task_id="bad")
        app.tasks["greet"].delay_on_commit(session, "good")
        app.send_on_commit(session, "of.somebody.else", [1], {}, task_id=None, owner=None, queue="letters")
    assert (sent(app), left(sqlite_database)) == (2, 1)
    assert [row.id for row in outbox.rows(sqlite_database, ["bad"])] == ["bad"]
    assert Relay(app, sqlite_database, after=0).step() == 0
    (row,) = outbox.rows(sqlite_database, ["bad"])
    assert "nowhere" in row.last_error


def test_rows_that_celery_has_to_send_are_sent(
    valkey_url: str, tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, sqlite_database)
    with app.database.session() as session:
        app.tasks["greet"].apply_on_commit(session, ("Ann",), compression="zlib")
        app.tasks["greet"].delay_on_commit(session, "Bob")
    assert (sent(app), left(sqlite_database)) == (2, 0)


def test_many_runs_of_one_transaction_go_in_bulk(
    valkey_url: str, tmp_path: Path, key_prefix: str, database: Database
) -> None:
    """More rows than one statement has room for parameters."""
    app = app_on(valkey_url, tmp_path, key_prefix, database)
    greet = app.tasks["greet"]
    with app.acting_as("7"), app.database.session() as session:
        calls = [*((f"n{n}",) for n in range(2998)), {"name": "named"}, greet.s("mine").set(task_id="mine")]
        ids = greet.delay_many_on_commit(session, iter(calls))
        assert sent(app) == 0
    assert (len(set(ids)), ids[-1], sent(app), left(database)) == (3000, "mine", 3000, 0)
    run = app.live.get("mine")
    assert run is not None
    assert (run.facts["args"], run.facts["owner"]) == (["mine"], "7")


async def test_many_runs_of_an_asyncio_transaction(
    valkey_url: str, tmp_path: Path, key_prefix: str, database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, database)
    async with app.database.async_session() as session:
        ids = app.tasks["greet"].delay_many_on_commit(session, ((f"n{n}",) for n in range(2500)))
        assert sent(app) == 0
    assert (len(set(ids)), sent(app), left(database)) == (2500, 2500, 0)


def test_a_bad_call_among_many_is_named_and_nothing_is_sent(
    valkey_url: str, tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, sqlite_database)
    with pytest.raises(InvalidArguments, match="call 2: name: Input should be a valid string"):
        with app.database.session() as session:
            app.tasks["greet"].delay_many_on_commit(session, [("a",), ("b",), (3,)])
    assert (sent(app), left(sqlite_database)) == (0, 0)


def test_a_session_holds_a_thousand_rows_at_most_while_it_is_given_many(
    valkey_url: str, tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    app = app_on(valkey_url, tmp_path, key_prefix, sqlite_database)
    held: list[int] = []

    def calls(session: Session) -> Iterator[tuple[str]]:
        for n in range(5000):
            held.append(len(session.new))
            yield (f"n{n}",)

    with app.database.session() as session:
        app.tasks["greet"].delay_many_on_commit(session, calls(session))
        session.rollback()
    assert max(held) <= 1000
