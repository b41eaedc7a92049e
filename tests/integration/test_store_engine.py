"""Connections: transactions, forks, event loops, migrations."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from errands.core.errors import ConfigurationError
from errands.store import migrate
from errands.store.engine import Database
from errands.store.tables import metadata

numbers = Table("app_numbers", MetaData(), Column("n", Integer, primary_key=True))


@pytest.fixture
def with_numbers(database: Database) -> Database:
    numbers.metadata.create_all(database.engine)
    return database


def count(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(numbers)) or 0


async def test_sessions_commit_and_roll_back(with_numbers: Database) -> None:
    with with_numbers.session() as session:
        session.execute(insert(numbers).values(n=1))
    async with with_numbers.async_session() as session:
        await session.execute(insert(numbers).values(n=2))
    with pytest.raises(IntegrityError):
        async with with_numbers.async_session() as session:
            await session.execute(insert(numbers), [{"n": 3}, {"n": 1}])
    with pytest.raises(IntegrityError), with_numbers.session() as session:
        session.execute(insert(numbers), [{"n": 4}, {"n": 1}])
    async with with_numbers.async_reading() as connection:
        assert (await connection.scalars(select(numbers.c.n).order_by(numbers.c.n))).all() == [1, 2]
    await with_numbers.adispose()


def test_each_event_loop_has_its_own_engine(with_numbers: Database) -> None:
    async def add(n: int) -> None:
        async with with_numbers.async_session() as session:
            await session.execute(insert(numbers).values(n=n))

    async def add_and_close(n: int) -> None:
        await add(n)
        await with_numbers.adispose()

    for n in range(3):
        asyncio.run(add_and_close(n))
    assert count(with_numbers) == 3


def test_two_that_read_and_then_write_wait_for_each_other(with_numbers: Database) -> None:
    """On SQLite a transaction that begins with a read, and is overtaken, fails at once; ours takes turns."""
    errors: list[BaseException] = []

    def bump() -> None:
        try:
            for _ in range(20):
                with with_numbers.session() as session:
                    if with_numbers.dialect == "postgresql":
                        session.execute(text("LOCK TABLE app_numbers"))
                    highest = session.scalar(select(func.coalesce(func.max(numbers.c.n), 0)))
                    session.execute(insert(numbers).values(n=highest + 1))
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=bump) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count(with_numbers) == 80


def test_a_reader_does_not_wait_for_a_writer(with_numbers: Database) -> None:
    with with_numbers.session() as session:
        session.execute(insert(numbers).values(n=1))
        assert count(with_numbers) == 0


def _insert_in_child(database: Database, n: int) -> None:
    with database.session() as session:
        session.execute(insert(numbers).values(n=n))


def test_a_forked_child_leaves_the_parents_connection_alone(with_numbers: Database) -> None:
    with with_numbers.session() as session:
        session.execute(insert(numbers).values(n=0))
        session.flush()
        session.commit()
    with with_numbers.reading() as connection:
        connection.execute(select(numbers)).all()
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=_insert_in_child, args=(with_numbers, n)) for n in (1, 2)]
        for child in children:
            child.start()
        for child in children:
            child.join(30)
        assert [child.exitcode for child in children] == [0, 0]
        connection.rollback()
        assert connection.scalar(select(func.count()).select_from(numbers)) == 3


def test_upgrade_makes_what_the_tables_say(empty_database: Database) -> None:
    empty_database.upgrade()
    empty_database.upgrade()
    with empty_database.reading() as connection:
        assert migrate.current(connection) is not None
        options = {
            "version_table": migrate.VERSION_TABLE,
            "compare_type": False,
            "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
        }
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert differences == []


def _upgrade(url: str, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    Database(url).upgrade()


def test_two_processes_may_upgrade_at_once(empty_database: Database) -> None:
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(3)
    url = empty_database.url.render_as_string(hide_password=False)
    processes = [fork.Process(target=_upgrade, args=(url, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert "errands_runs" in inspect(empty_database.engine).get_table_names()


def test_an_application_keeps_its_own_alembic(empty_database: Database) -> None:
    with empty_database.writing() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('abc')"))
    empty_database.upgrade()
    with empty_database.reading() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "abc"


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "sqlite:///:memory:", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database URL"):
        Database(url)


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Database("postgresql://me:hunter2@127.0.0.1/x"))
