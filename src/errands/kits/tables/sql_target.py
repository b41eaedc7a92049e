"""A table or ORM model as a target, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    bindparam,
    func,
    inspect,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.ext.asyncio import AsyncSession

from errands import ConfigurationError
from errands.kits.tables.checking import Key
from errands.kits.tables.target import Target, Update

_AT_ONCE = 500  # keys of one query; SQLite's older versions take 999 values


class SqlTarget(Target):
    """Writes to a table.

    New rows are inserted; a key that another transaction has inserted meanwhile updates its row. Rows that
    are there get only the values that differ. Python-side defaults (`default=`, `onupdate=`) of columns hold;
    events of the ORM do not fire.

    Args:
        table: a SQLAlchemy `Table` or a mapped class.
        key: the fields of the natural key. The table must have a primary key, a unique constraint or a unique
            index over just these columns.
        columns: the column (or attribute) of each field that is called otherwise.

    Raises:
        ConfigurationError: a column that there is not, or a key that is not unique.
    """

    def __init__(
        self,
        table: Table | type[Any],
        key: str | Sequence[str],
        *,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        self.table, self._attributes = _table(table)
        self._renamed = dict(columns or {})
        self._key = (key,) if isinstance(key, str) else tuple(key)
        self._key_columns = [self.table.c[self._column(field)] for field in self._key]
        if not _is_unique(self.table, {column.name for column in self._key_columns}):
            raise ConfigurationError(
                f"tables.SqlTarget({self.table.name!r}, key={self._key!r}): no primary key, unique "
                "constraint or unique index is over just these columns, so two rows could have one key"
            )

    def check(self, fields: Iterable[str]) -> None:
        """Raises:
        ConfigurationError: one of the fields is no column.
        """
        for field in fields:
            self._column(field)

    async def count(self, session: AsyncSession) -> int:
        return (await session.scalar(select(func.count()).select_from(self.table))) or 0

    async def existing(self, session: AsyncSession, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, Any]]:
        found: dict[Key, Mapping[str, Any]] = {}
        fields = {self._column(field): field for field in self._renamed}
        fields |= {c.key: self._attributes.get(c.key, c.key) for c in self.table.c if c.key not in fields}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            among = (
                self._key_columns[0].in_([key[0] for key in some])
                if len(self._key_columns) == 1
                else tuple_(*self._key_columns).in_(some)
            )
            query = select(self.table).where(among)
            for row in (await session.execute(query)).mappings():
                values = {fields[column.key]: row[column] for column in self.table.c}
                found[tuple(values[field] for field in self._key)] = values
        return found

    async def apply(
        self, session: AsyncSession, creates: Sequence[Mapping[str, Any]], updates: Sequence[Update]
    ) -> None:
        # Rows of one statement have the same columns.
        for fields, rows in _alike(creates).items():
            await self._insert(session, fields, rows)
        groups: dict[tuple[str, ...], list[Update]] = defaultdict(list)
        for one in updates:
            groups[tuple(one.values)].append(one)
        for fields, changes in groups.items():
            await self._update(session, fields, changes)

    async def _insert(
        self, session: AsyncSession, fields: tuple[str, ...], rows: Sequence[Mapping[str, Any]]
    ) -> None:
        dialect = session.get_bind().dialect.name
        insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
        statement = insert(self.table)
        columns = [(self._column(field), field) for field in fields]
        others = [column for column, field in columns if field not in self._key]
        statement = (
            statement.on_conflict_do_update(
                index_elements=self._key_columns,
                set_={name: statement.excluded[name] for name in others},
            )
            if others
            else statement.on_conflict_do_nothing(index_elements=self._key_columns)
        )
        await session.execute(statement, [{column: row[field] for column, field in columns} for row in rows])

    async def _update(
        self, session: AsyncSession, fields: tuple[str, ...], changes: Sequence[Update]
    ) -> None:
        # Through the connection: the ORM takes an update with many values for one by primary key.
        connection = await session.connection()
        statement = (
            update(self.table)
            .where(*(c == bindparam(f"key_{n}", type_=c.type) for n, c in enumerate(self._key_columns)))
            .values({self._column(f): bindparam(f"new_{n}") for n, f in enumerate(fields)})
        )
        await connection.execute(
            statement,
            [
                {f"key_{n}": part for n, part in enumerate(change.key)}
                | {f"new_{n}": change.values[field] for n, field in enumerate(fields)}
                for change in changes
            ],
        )

    def _column(self, field: str) -> str:
        name = self._renamed.get(field, field)
        name = next((key for key, attribute in self._attributes.items() if attribute == name), name)
        if name not in self.table.c:
            raise ConfigurationError(
                f"tables.SqlTarget({self.table.name!r}): there is no column {name!r} for the field "
                f"{field!r}; name it in columns=…"
            )
        return name


def _table(table: Table | type[Any]) -> tuple[Table, dict[str, str]]:
    """The table, and what attributes its columns have where they are called otherwise."""
    if isinstance(table, Table):
        return table, {}
    try:
        mapper = inspect(table)
    except NoInspectionAvailable:
        raise ConfigurationError(f"tables.SqlTarget({table!r}): give a Table or a mapped class") from None
    if not isinstance(mapper.local_table, Table):
        raise ConfigurationError(f"tables.SqlTarget({table!r}): it is not mapped to a table")
    named = {attribute.columns[0].key: attribute.key for attribute in mapper.column_attrs}
    return mapper.local_table, {column: name for column, name in named.items() if column != name}


def _is_unique(table: Table, columns: set[str]) -> bool:
    constraints = [c for c in table.constraints if isinstance(c, PrimaryKeyConstraint | UniqueConstraint)]
    unique = [*constraints, *(index for index in table.indexes if index.unique)]
    return any(columns == {column.name for column in one.columns} for one in unique)


def _alike(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row)].append(row)
    return groups
