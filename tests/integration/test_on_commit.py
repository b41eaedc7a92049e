"""Sending is tied to the commit (mistake 25), with and without asyncio, on each database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from errands import Database, Errands, InvalidArguments, Keyring, Secret, Settings, Subject
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.events import Kind
from errands.store import outbox, tables
from errands.testing import Enqueued, capture, inline


@pytest.fixture
def app(database: Database, tmp_path: Path) -> Errands:
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(
        home=tmp_path, database_url=url, broker_url="redis://127.0.0.1:1/0", secret_keys=Keyring.new_key()
    )
    made = Errands("on-commit", settings=settings, set_as_current=False)
    made.__dict__["database"] = database

    @made.task(name="greet", queue="letters")
    def greet(name: str, *, token: Secret[str] = "") -> str:
        return f"hello {name}"

    return made


@pytest.fixture
def enqueued(app: Errands) -> Iterator[Enqueued]:
    with capture(app) as found:
        yield found


def waiting(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).where(tables.outbox.c.sent_at.is_(None))) or 0


def test_the_id_is_known_at_once_and_the_sending_follows_the_commit(app: Errands, enqueued: Enqueued) -> None:
    with app.database.session() as session:
        run_id = app.tasks["greet"].delay_on_commit(session, "Ann")
        assert len(enqueued) == 0
    assert enqueued.assert_enqueued("greet", "Ann").id == run_id
    assert waiting(app.database) == 0


async def test_the_same_with_asyncio(app: Errands, enqueued: Enqueued) -> None:
    async with app.database.async_session() as session:
        run_id = app.tasks["greet"].delay_on_commit(session, "Ann")
        assert len(enqueued) == 0
    assert enqueued.assert_enqueued("greet", "Ann").id == run_id
    assert waiting(app.database) == 0


def test_a_rolled_back_transaction_sends_nothing(app: Errands, enqueued: Enqueued) -> None:
    with pytest.raises(KeyError), app.database.session() as session:
        app.tasks["greet"].delay_on_commit(session, "Ann")
        session.flush()
        raise KeyError
    assert (len(enqueued), waiting(app.database)) == (0, 0)


async def test_a_rolled_back_transaction_sends_nothing_with_asyncio(app: Errands, enqueued: Enqueued) -> None:
    with pytest.raises(KeyError):
        async with app.database.async_session() as session:
            app.tasks["greet"].delay_on_commit(session, "Ann")
            await session.flush()
            raise KeyError
    assert (len(enqueued), waiting(app.database)) == (0, 0)


def test_a_savepoint_that_is_rolled_back_sends_nothing_of_its_own(app: Errands, enqueued: Enqueued) -> None:
    with app.database.session() as session:
        app.tasks["greet"].delay_on_commit(session, "kept")
        with pytest.raises(KeyError), session.begin_nested():
            app.tasks["greet"].delay_on_commit(session, "dropped")
            session.flush()
            raise KeyError
        with session.begin_nested():
            app.tasks["greet"].delay_on_commit(session, "also kept")
        assert len(enqueued) == 0
    assert [sent.args for sent in enqueued.sent] == [("kept",), ("also kept",)]


def test_one_session_may_commit_more_than_once(app: Errands, enqueued: Enqueued) -> None:
    with Session(app.database.engine) as session:
        for name in ("Ann", "Bob"):
            app.tasks["greet"].delay_on_commit(session, name)
            session.commit()
    assert [sent.args for sent in enqueued.sent] == [("Ann",), ("Bob",)]


def test_a_bad_call_fails_before_anything_is_written(app: Errands, enqueued: Enqueued) -> None:
    with app.database.session() as session:
        with pytest.raises(InvalidArguments):
            app.tasks["greet"].delay_on_commit(session)
    assert (len(enqueued), waiting(app.database)) == (0, 0)


def test_secrets_lie_sealed_in_the_outbox(app: Errands) -> None:
    with app.database.session() as session:
        app.tasks["greet"].delay_on_commit(session, "Ann", token="open sesame")
        session.flush()
        row: Any = session.execute(select(tables.outbox)).one()
        assert "sesame" not in repr(tuple(row))
        assert "sealed:" in repr(tuple(row))
        session.rollback()


def test_an_id_that_waits_already_is_the_same_run(app: Errands) -> None:
    """A task that is delivered twice asks twice for its follow-up, maybe before the first was sent."""
    for _ in range(2):
        with app.database.session() as session:
            app.tasks["greet"].apply_on_commit(session, ("Ann",), task_id="child")
    assert waiting(app.database) == 1


def test_options_and_owner_travel_along(app: Errands, enqueued: Enqueued) -> None:
    with clock.use(FakeClock()) as now:
        with app.acting_as("7"), app.database.session() as session:
            app.tasks["greet"].apply_on_commit(session, ("Ann",), countdown=60, expires=90, task_id="mine")
            session.flush()
            row: Any = session.execute(select(tables.outbox)).one()
            assert row.owner == "7"
            called = clock.now()
            now.advance(5)  # seconds count from the call, however long the transaction takes
    sent = enqueued.assert_enqueued("greet", "Ann")
    assert (sent.id, sent.eta) == ("mine", called + timedelta(seconds=60))
    assert sent.countdown is None


def test_a_callers_headers_travel_along(app: Errands) -> None:
    """They were lost without a word."""
    seen = []

    @app.task(name="looks", bind=True)
    def looks(self: Any) -> None:
        seen.append(self.request.headers["tenant"])

    with inline(app), app.database.session() as session:
        looks.apply_on_commit(session, headers={"tenant": "north"})
    assert seen == ["north"]


def test_what_a_run_sends_is_about_the_same_person_whoever_sends_it(app: Errands) -> None:
    """The relay knows nothing of the run that wrote the row."""
    with app.database.session() as session:

        @app.task(name="about")
        def about(person: Subject[str]) -> None:
            app.tasks["greet"].delay_on_commit(session, "Ann")

        with inline(app) as runs:
            about.delay("7")
            session.commit()  # long after the run has ended
            followed = [event for event in runs.events if event.task == "greet" and event.kind is Kind.QUEUED]
    assert [event.subject for event in followed] == ["7"]


def test_a_broker_that_is_down_does_not_hurt_the_request(app: Errands) -> None:
    with app.database.session() as session:
        run_id = app.tasks["greet"].delay_on_commit(session, "Ann")
    assert [row.id for row in outbox.rows(app.database, [run_id])] == [run_id]


async def test_a_loop_is_not_held_up_by_the_sending(app: Errands, monkeypatch: pytest.MonkeyPatch) -> None:
    loop_thread: list[bool] = []

    def publish(run_ids: Any) -> None:
        try:
            asyncio.get_running_loop()
            loop_thread.append(True)
        except RuntimeError:
            loop_thread.append(False)

    monkeypatch.setattr(app, "publish_committed", publish)
    async with app.database.async_session() as session:
        app.tasks["greet"].delay_on_commit(session, "Ann")
    assert loop_thread == [False]


async def test_a_plain_session_works_inside_of_a_loop_too(app: Errands, enqueued: Enqueued) -> None:
    with app.database.session() as session:
        app.tasks["greet"].delay_on_commit(session, "Ann")
    enqueued.assert_enqueued("greet", "Ann")


def test_a_runs_own_session_sends_its_follow_ups_with_its_commit(app: Errands) -> None:
    @app.task(name="parent")
    def parent(fail: bool, *, session: Session) -> str:
        sent = app.tasks["greet"].delay_on_commit(session, "child")
        if fail:
            raise KeyError("rolled back")
        return sent

    @app.task(name="aparent")
    async def aparent(*, session: AsyncSession) -> str:
        return app.tasks["greet"].delay_on_commit(session, "child")

    with inline(app) as runs:
        for name, args in (("parent", (False,)), ("aparent", ())):
            child = app.tasks[name].delay(*args).get()
            assert [e.kind for e in runs.events if e.run_id == child][-1] is Kind.SUCCEEDED
        runs.clear()
        app.tasks["parent"].delay(True)
        assert {event.task for event in runs.events if event.task} == {"parent"}


async def test_task_with_db_is_given_its_session_and_takes_a_tests_own(app: Errands) -> None:
    @app.task_with_db(name="count_outbox")
    async def count_outbox(db: AsyncSession, plus: int) -> int:
        found = await db.scalar(select(func.count()).select_from(tables.outbox))
        return (found or 0) + plus

    async with app.database.async_session() as session:
        session.add(
            outbox.OutboxEntry(id="x", task="t", args=[], kwargs={}, options={}, created_at=None, tries=0)
        )
        with session.no_autoflush:
            assert await count_outbox.run_with_db(session, 1) == 1
        session.expunge_all()
    with inline(app):
        assert (await asyncio.to_thread(count_outbox.delay, 5)).get() == 5
