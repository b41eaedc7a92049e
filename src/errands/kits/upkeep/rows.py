"""Old rows of a table: counted, and deleted a chunk at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Date,
    DateTime,
    Select,
    Table,
    UniqueConstraint,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy import inspect as inspect_table
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.asyncio import AsyncConnection

from errands.core import clock
from errands.kits.upkeep.calling import called
from errands.kits.upkeep.declaration import Upkeep
from errands.store.types import UtcDateTime


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one transaction did: rows it deleted, and the time from which on the next one has to look."""

    deleted: int
    newest: Any


class OldRows:
    """The rows of an upkeep's table that may go.

    Raises:
        ConfigurationError: the table has no primary key, or the column is none of its own, or no time.
    """

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep
        self.table = _table(upkeep)
        self.column = _column(upkeep, self.table)
        self._key = list(self.table.primary_key.columns)
        if not self._key:
            upkeep.refuse(f"the table {self.table.name!r} has no primary key to delete its rows by")

    @property
    def indexed(self) -> bool:
        """Whether an index begins with the column. Without one, each chunk reads the whole table."""
        indexes: list[Any] = [*self.table.indexes, self.table.primary_key]
        indexes += [one for one in self.table.constraints if isinstance(one, UniqueConstraint)]
        return bool(self.column.unique or self.column.index) or any(
            next(iter(index.columns), None) is self.column for index in indexes
        )

    def before(self) -> Any:
        """The moment before which a row is old, as the column keeps times."""
        moment = clock.now() - (self._upkeep.older_than or timedelta(0))
        if isinstance(self.column.type, Date):
            return moment.date()
        aware = isinstance(self.column.type, UtcDateTime) or getattr(self.column.type, "timezone", False)
        return moment if aware else moment.replace(tzinfo=None)

    def count(self, connection: Connection, before: Any) -> int:
        """How many may go."""
        query = select(func.count()).select_from(self.table).where(*self._old(before))
        return int(connection.scalar(query) or 0)

    def oldest(self, connection: Connection) -> str | None:
        """The time of the oldest row that `where` speaks of, as ISO text; None: there is none."""
        where = [] if self._upkeep.where is None else [self._upkeep.where]
        found = connection.scalar(select(func.min(self.column)).select_from(self.table).where(*where))
        if isinstance(found, datetime):
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
        return found.isoformat() if isinstance(found, date) else None

    async def delete(self, connection: AsyncConnection, before: Any, since: Any) -> Chunk:
        """Delete one chunk, the oldest first, beginning at the time `since` (None: the beginning). The
        connection is in a transaction of its own.

        Rows that another run is deleting are left to it.
        """
        wanted = self._chunk(before, since)
        if self._upkeep.archive is None:
            # No row comes here: the server deletes what it finds, and tells how far that went.
            times = wanted.with_only_columns(self.column).subquery()
            newest = await connection.scalar(select(func.max(times.c[self.column.name])))
            keys = wanted.with_only_columns(*self._key).with_for_update(skip_locked=True)
            return Chunk(await self._delete(connection, keys), newest)
        query = wanted.with_for_update(skip_locked=True)
        rows = (await connection.execute(query)).mappings().all()
        if not rows:
            return Chunk(0, since)
        await called(self._upkeep.archive, [dict(row) for row in rows])
        keys_of = [tuple(row[column] for column in self._key) for row in rows]
        return Chunk(await self._delete(connection, keys_of), rows[-1][self.column])

    def _chunk(self, before: Any, since: Any) -> Select[Any]:
        return (
            select(*self.table.columns)
            .where(*self._old(before), *([] if since is None else [self.column >= since]))
            .order_by(self.column, *self._key)
            .limit(self._upkeep.chunk)
        )

    async def _delete(self, connection: AsyncConnection, keys: Select[Any] | list[tuple[Any, ...]]) -> int:
        many: Any = keys
        if len(self._key) == 1:
            many = keys if isinstance(keys, Select) else [key for (key,) in keys]
            mine = self._key[0].in_(many)
        else:
            mine = tuple_(*self._key).in_(many)
        return (await connection.execute(delete(self.table).where(mine))).rowcount

    def _old(self, before: Any) -> list[Any]:
        where = self._upkeep.where
        return [self.column < before, *([] if where is None else [where])]


def _table(upkeep: Upkeep) -> Table:
    if isinstance(upkeep.table, Table):
        return upkeep.table
    try:
        found = inspect_table(upkeep.table).local_table
    except (NoInspectionAvailable, AttributeError):
        found = None
    if not isinstance(found, Table):
        upkeep.refuse(f"table={upkeep.table!r} is neither a Table nor a mapped class")
    return found


def _column(upkeep: Upkeep, table: Table) -> Column[Any]:
    given = upkeep.column
    name = given if isinstance(given, str) else getattr(given, "name", None)
    owner = table if isinstance(given, str) else getattr(given, "table", None)
    column = table.columns.get(name) if isinstance(name, str) else None
    if column is None or getattr(owner, "name", None) != table.name:
        upkeep.refuse(f"column={given!s} is no column of the table {table.name!r}")
    if not isinstance(column.type, UtcDateTime | DateTime | Date):
        upkeep.refuse(f"the column {column} is no time but {column.type!r}; name one that is")
    return column
