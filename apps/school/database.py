"""The school's tables and sessions. They live in the same database as Errands' own tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, MetaData, Result, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

from errands import Database
from errands.store.types import UtcDateTime

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The root of the school's tables."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012


class ReadingSession(AsyncSession):
    """A session for queries alone. On SQLite it neither waits for writers nor keeps them waiting."""


@asynccontextmanager
async def writing_session(database: Database) -> AsyncIterator[AsyncSession]:
    """A session that commits at the end of the block and rolls back on an error.

    `await session.commit()` inside the block keeps what was done so far and gives its locks back.
    """
    async with AsyncSession(database.async_engine, expire_on_commit=False) as session:
        yield session
        await session.commit()


@asynccontextmanager
async def reading_session(database: Database) -> AsyncIterator[ReadingSession]:
    """A session for queries."""
    async with (
        database.async_reading() as connection,
        ReadingSession(bind=connection, expire_on_commit=False) as session,
    ):
        yield session


async def insert_missing(session: AsyncSession, table: type[Base], **values: Any) -> bool:
    """Insert a row unless a unique constraint has it already; in a race one caller alone gets True."""
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    rows = cast(Table, table.__table__)
    statement = insert(rows).values(**values).on_conflict_do_nothing().returning(*rows.primary_key)
    return (await session.execute(statement)).first() is not None


def changed(result: Result[Any]) -> int:
    """How many rows a statement changed."""
    return cast("CursorResult[Any]", result).rowcount
