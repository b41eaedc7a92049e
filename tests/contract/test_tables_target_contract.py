"""What every target of an import does: a table of each kind of database, and the fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import Column, Date, Integer, MetaData, Table, Text, UniqueConstraint, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from errands import ConfigurationError, Database
from errands.kits.tables import FakeTarget, SqlTarget, Target, Update
from errands.store.types import UtcDateTime

cadets = Table(
    "cadets",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("school", Integer, nullable=False),
    Column("number", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("born", Date),
    Column("changed", UtcDateTime, onupdate=lambda: datetime(2026, 1, 1, tzinfo=UTC)),
    UniqueConstraint("school", "number"),
)
ANN: dict[str, Any] = {"school": 1, "number": "a", "name": "Ann", "born": date(2005, 2, 3)}
BOB: dict[str, Any] = {"school": 2, "number": "a", "name": "Bob", "born": None}


class Kind:
    def __init__(self, target: Target, database: Database) -> None:
        self.target = target
        self._database = database

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        async with self._database.async_session() as session:
            yield session

    async def write(self, *creates: dict[str, Any], updates: Sequence[Update] = ()) -> None:
        async with self.session() as session:
            await self.target.apply(session, creates, updates)

    async def row(self, *key: Any) -> dict[str, Any] | None:
        async with self.session() as session:
            found = (await self.target.existing(session, [key])).get(key)
        return None if found is None else {name: found[name] for name in ANN}


@pytest.fixture(params=["sql", "fake"])
async def kind(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Kind]:
    cadets.metadata.create_all(database.engine)
    key = ("school", "number")
    yield Kind(SqlTarget(cadets, key) if request.param == "sql" else FakeTarget(key), database)
    await database.adispose()


async def test_what_was_created_is_found_by_its_whole_key(kind: Kind) -> None:
    await kind.write(ANN, BOB)
    assert await kind.row(1, "a") == ANN
    assert await kind.row(2, "a") == BOB
    assert await kind.row(3, "a") is None
    async with kind.session() as session:
        assert await kind.target.count(session) == 2
        assert set(await kind.target.existing(session, [(1, "a"), (2, "b")])) == {(1, "a")}
        assert await kind.target.existing(session, []) == {}


async def test_an_update_changes_what_it_names_and_no_more(kind: Kind) -> None:
    await kind.write(ANN, BOB)
    changes = [
        Update((1, "a"), {"name": "Anna"}),
        Update((2, "a"), {"name": "Rob", "born": date(2006, 1, 1)}),
    ]
    await kind.write(updates=changes)
    assert await kind.row(1, "a") == {**ANN, "name": "Anna"}
    assert await kind.row(2, "a") == {**BOB, "name": "Rob", "born": date(2006, 1, 1)}


async def test_a_value_can_be_taken_away(kind: Kind) -> None:
    await kind.write(ANN)
    await kind.write(updates=[Update((1, "a"), {"born": None})])
    assert await kind.row(1, "a") == {**ANN, "born": None}


async def test_a_row_that_somebody_created_meanwhile_is_updated(kind: Kind) -> None:
    await kind.write(ANN)
    await kind.write({**ANN, "name": "Anna"})
    assert await kind.row(1, "a") == {**ANN, "name": "Anna"}
    async with kind.session() as session:
        assert await kind.target.count(session) == 1


async def test_many_rows(kind: Kind) -> None:
    rows = [{**ANN, "number": str(n)} for n in range(2500)]
    await kind.write(*rows)
    async with kind.session() as session:
        found = await kind.target.existing(session, [(1, str(n)) for n in range(2500)])
    assert len(found) == 2500


# -- of tables alone


async def test_rows_with_different_columns_go_together(database: Database) -> None:
    cadets.metadata.create_all(database.engine)
    kind = Kind(SqlTarget(cadets, ("school", "number")), database)
    await kind.write({name: BOB[name] for name in ("school", "number", "name")}, ANN)
    assert (await kind.row(1, "a"), await kind.row(2, "a")) == (ANN, BOB)
    await database.adispose()


async def test_what_is_rolled_back_was_never_there(database: Database) -> None:
    cadets.metadata.create_all(database.engine)
    kind = Kind(SqlTarget(cadets, ("school", "number")), database)
    with pytest.raises(RuntimeError):
        async with kind.session() as session:
            await kind.target.apply(session, [ANN], [])
            raise RuntimeError
    assert await kind.row(1, "a") is None
    await database.adispose()


async def test_defaults_of_columns_hold(database: Database) -> None:
    cadets.metadata.create_all(database.engine)
    kind = Kind(SqlTarget(cadets, ("school", "number")), database)
    await kind.write(ANN)
    await kind.write(updates=[Update((1, "a"), {"name": "Anna"})])
    async with kind.session() as session:
        assert (await session.scalar(select(cadets.c.changed))) == datetime(2026, 1, 1, tzinfo=UTC)
    await database.adispose()


class Base(DeclarativeBase):
    pass


class Student(Base):
    __tablename__ = "students_mapped"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column("mail", unique=True)
    full_name: Mapped[str]


async def test_a_mapped_class_whose_columns_and_fields_are_called_otherwise(database: Database) -> None:
    Base.metadata.create_all(database.engine)
    target = SqlTarget(Student, "address", columns={"address": "email"})
    target.check(["address", "full_name"])
    async with database.async_session() as session:
        await target.apply(session, [{"address": "a@example.com", "full_name": "Ann"}], [])
        await target.apply(session, [], [Update(("a@example.com",), {"full_name": "Anna"})])
        found = await target.existing(session, [("a@example.com",)])
    assert found[("a@example.com",)] == {"id": 1, "address": "a@example.com", "full_name": "Anna"}
    await database.adispose()


def test_a_key_that_is_not_unique_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'cadets'.*two rows could have one key"):
        SqlTarget(cadets, "number")
    with pytest.raises(ConfigurationError, match="no column 'numbr' for the field 'numbr'"):
        SqlTarget(cadets, "numbr")
    with pytest.raises(ConfigurationError, match="a Table or a mapped class"):
        SqlTarget(dict, "number")
    with pytest.raises(ConfigurationError, match="no column 'rank'"):
        SqlTarget(cadets, ("school", "number")).check(["name", "rank"])
