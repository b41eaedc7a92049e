"""Batches that are sent with a transaction: none of them begins before its members are sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from errands import ActionRefused, BatchStatus, Database, Errands, Event, Keyring, Kind, Settings, State
from errands.beat.relay import Relay
from errands.core import clock
from errands.core.clock import FakeClock
from errands.testing import inline


def make(database: Database, folder: Path, url: str, prefix: str) -> Errands:
    settings = Settings(
        home=folder, database_url=database.url.render_as_string(hide_password=False), broker_url=url,
        key_prefix=prefix, secret_keys=Keyring.new_key(),
    )  # fmt: skip
    app = Errands("on-commit", settings=settings, set_as_current=False)
    app.__dict__["database"] = database

    @app.task(name="report", queue="reports")
    def report(n: int) -> int:
        return n

    @app.task(name="tidy", queue="after")
    def tidy(outcome: BatchStatus) -> dict[str, Any]:
        followed.append(outcome)
        return {}

    return app


followed: list[BatchStatus] = []


@pytest.fixture
def app(database: Database, tmp_path: Path, valkey_url: str, key_prefix: str) -> Iterator[Errands]:
    followed.clear()
    made = make(database, tmp_path, valkey_url, key_prefix)
    yield made
    made.close()


def batch(app: Errands, session: Any) -> Any:
    return app.batch_on_commit(session, "May", on_complete=app.tasks["tidy"].s())


def test_it_begins_with_the_commit(app: Errands) -> None:
    report = app.tasks["report"]
    with app.database.session() as session:
        with batch(app, session) as made:
            ids = [report.delay_on_commit(session, n) for n in range(3)]
            ids += report.delay_many_on_commit(session, [(3,), (4,)])
        assert app.live.get(made.id) is None
        assert app.live.get(ids[0]) is None
    status = made.status()
    assert (status.name, status.state, status.total, status.open) == ("May", State.RUNNING, 5, False)
    member = app.live.get(ids[0])
    assert member is not None
    assert (member.facts["parent_id"], member.facts["root_id"]) == (made.id, made.id)
    for run_id in ids:
        app.live.record(Event(kind=Kind.SUCCEEDED, run_id=run_id, at=1.0))
    assert made.status().state is State.SUCCEEDED
    assert app.valkey.xlen(app.keys.stream("after", "normal")) == 1


def test_a_rollback_leaves_nothing(app: Errands) -> None:
    with pytest.raises(ZeroDivisionError), app.database.session() as session:
        with batch(app, session) as made:
            app.tasks["report"].delay_on_commit(session, 1)
        raise ZeroDivisionError
    assert app.batches.status(made.id) is None
    assert app.live.get(made.id) is None


async def test_the_same_with_asyncio(app: Errands) -> None:
    async with app.database.async_session() as session:
        async with batch(app, session) as made:
            app.tasks["report"].delay_on_commit(session, 1)
    assert (await made.astatus()).total == 1
    await app.database.adispose()


def test_the_broker_is_away_and_the_relay_sends_it_whole(
    sqlite_database: Database, tmp_path: Path, valkey_url: str, key_prefix: str
) -> None:
    away = make(sqlite_database, tmp_path, "redis://127.0.0.1:1/0", key_prefix)
    with clock.use(FakeClock()) as now:
        with away.database.session() as session:
            with batch(away, session) as made:
                for n in range(3):
                    away.tasks["report"].delay_on_commit(session, n)
        back = make(sqlite_database, tmp_path, valkey_url, key_prefix)
        now.advance(timedelta(minutes=1).total_seconds())
        relay = Relay(back, sqlite_database, batch=2)  # the batch comes apart
        sent = 0
        while back.batches.status(made.id) is None:
            assert sent < 4, "all were sent, and it has not begun"
            sent += relay.step()
            now.advance(10)
    assert back.get_batch(made.id).status().total == 3
    away.close()
    back.close()


def test_a_batch_waits_in_the_outbox_for_its_members(app: Errands) -> None:
    from errands.store import outbox, reads

    with app.database.session() as session:
        outbox_rows: list[str] = []
        with batch(app, session) as made:
            outbox_rows.append(app.tasks["report"].delay_on_commit(session, 1))
        session.info["errands_outbox"].clear()  # nobody sends them: the process dies after its commit
    with app.database.reading() as connection:
        rows = reads.outbox_due(connection, timedelta(0))
    only = [row for row in rows if row.id == made.id]
    refused = app.publish_outbox(only)
    assert isinstance(refused[made.id], ActionRefused)
    assert app.publish_outbox(rows) == {}
    assert made.status().total == 1
    assert outbox.members_waiting(app.database, made.id, outbox_rows) is False


def test_ways_of_sending_are_not_mixed(app: Errands) -> None:
    report = app.tasks["report"]
    with app.database.session() as session:
        with pytest.raises(ActionRefused, match="use delay_on_commit"), batch(app, session):
            report.delay(1)
        with pytest.raises(ActionRefused, match=r"use app\.batch_on_commit"), app.batch("at once"):
            report.delay_on_commit(session, 1)


def test_inline(app: Errands) -> None:
    with inline(app), app.database.session() as session:
        with batch(app, session) as made:
            app.tasks["report"].delay_on_commit(session, 1)
        assert followed == []
        session.commit()
        assert made.status().state is State.SUCCEEDED
        assert [outcome.total for outcome in followed] == [1]
