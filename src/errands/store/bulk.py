"""Runs and attempts in bulk: loaded by one statement a table, written by one for all new rows and one for
each set of columns that changed together. Straight to the driver, in its types: SQLAlchemy sees no row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from operator import itemgetter, ne
from typing import Any, Protocol

import msgspec
from msgspec.structs import astuple
from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

from errands.store.row import UNSET, Attempt, Moment, Run
from errands.store.tables import attempts, runs

Values = tuple[Any, ...]
Columns = tuple[str, ...]

_NAMES: dict[str, Columns] = {table.name: tuple(table.c.keys()) for table in (runs, attempts)}
_KEYS: dict[str, Columns] = {runs.name: ("id",), attempts.name: ("run_id", "number")}
# What changes together. Columns with an index are apart from the others: SQLite writes an index again as soon
# as a statement names its column.
_GROUPS: dict[str, tuple[Columns, ...]] = {
    runs.name: (
        ("state", "attempt", "eta", "started_at", "updated_at", "worker"),
        ("finished_at", "duration", "reopened_at"),
        ("task", "queue", "owner", "subject", "parent_id", "root_id", "max_attempts", "created_at",
         "queued_at", "expires_at"),
        ("args", "kwargs", "message"),
        ("result",),
        ("error_type", "error_message", "error_traceback"),
        ("progress",),
    ),
    attempts.name: (
        ("started_at", "finished_at", "outcome", "worker", "duration", "retry_at"),
        ("error_type", "error_message", "error_traceback"),
    ),
}  # fmt: skip
_LIGHT_RUN = (
    "id, task, queue, state, owner, parent_id, root_id, message IS NOT NULL, attempt, max_attempts,"
    " created_at, queued_at, eta, started_at, finished_at, expires_at, reopened_at, updated_at, duration,"
    " worker, subject"
)
_LIGHT_ATTEMPT = "run_id, number, started_at, finished_at, outcome, worker, duration, retry_at"


class Dialect(Protocol):
    """How one kind of database is spoken to."""

    # Entries in one transaction at most.
    batch: int

    def moment(self, seconds: float) -> Moment: ...

    def select(self, connection: Connection, columns: str, table: str, key: str, ids: list[str]) -> Any: ...

    def insert(self, connection: Connection, table: Table, rows: list[Run] | list[Attempt]) -> None: ...

    def update(self, connection: Connection, table: Table, columns: Columns, rows: list[Values]) -> None: ...


class Loaded:
    """The rows of some runs as the database has them, to be changed and then saved.

    Args:
        connection: in a transaction that nobody else writes runs beside.
        ids: the runs' ids; those that do not exist yet may be among them.
    """

    def __init__(self, connection: Connection, ids: list[str]) -> None:
        self.dialect = dialect_of(connection)
        self._connection = connection
        self.runs: dict[str, Run] = {}
        self.attempts: dict[tuple[str, int], Attempt] = {}
        self._before: dict[Any, Values] = {}
        select = self.dialect.select
        for row in select(connection, _LIGHT_RUN, runs.name, "id", ids):
            heavy = UNSET, UNSET, UNSET if row[7] else None
            run = Run(*(*row[:7], *heavy, *row[8:], UNSET, UNSET, UNSET, UNSET, UNSET))
            self.runs[run.id] = run
            self._before[run.id] = astuple(run)
        if not self.runs:
            return
        for row in select(connection, _LIGHT_ATTEMPT, attempts.name, "run_id", list(self.runs)):
            attempt = Attempt(*(*row[:7], UNSET, UNSET, UNSET, row[7]))
            key = attempt.run_id, attempt.number
            self.attempts[key] = attempt
            self._before[key] = astuple(attempt)

    def save(self) -> None:
        """Write what is new and what changed."""
        self._save(runs, self.runs)
        self._save(attempts, self.attempts)

    def _save(self, table: Table, rows: dict[Any, Any]) -> None:
        new: list[Any] = []
        changed: defaultdict[Columns, list[Values]] = defaultdict(list)
        before = self._before
        for key, row in rows.items():
            was = before.get(key)
            if was is None:
                new.append(row)
            elif (now := astuple(row)) != was:
                changed[_changed(table.name, tuple(map(ne, now, was)))].append(now)
        if new:
            self.dialect.insert(self._connection, table, new)
        for columns, some in changed.items():
            get = _getter(table.name, columns + _KEYS[table.name])
            self.dialect.update(self._connection, table, columns, [get(values) for values in some])


class Sqlite:
    """Statements with a row's values as parameters: SQLite is in this process, and runs them one by one."""

    batch = 2000

    def moment(self, seconds: float) -> str:
        """As SQLAlchemy writes it; texts sort as their moments do."""
        return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "microseconds")[:26]

    def select(self, connection: Connection, columns: str, table: str, key: str, ids: list[str]) -> Any:
        wanted = msgspec.json.encode(ids).decode()
        query = f"SELECT {columns} FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))"  # noqa: S608
        return connection.exec_driver_sql(query, (wanted,)).fetchall()

    def insert(self, connection: Connection, table: Table, rows: list[Run] | list[Attempt]) -> None:
        connection.exec_driver_sql(_sqlite_insert(table.name), [astuple(row) for row in rows])

    def update(self, connection: Connection, table: Table, columns: Columns, rows: list[Values]) -> None:
        connection.exec_driver_sql(_sqlite_update(table.name, columns), rows)


class Postgres:
    """All rows in one parameter, as JSON: a third of a message a row for driver and server."""

    batch = 5000

    def moment(self, seconds: float) -> datetime:
        """What the driver gives back, too."""
        return datetime.fromtimestamp(seconds, UTC)

    def select(self, connection: Connection, columns: str, table: str, key: str, ids: list[str]) -> Any:
        wanted = "ANY(ARRAY(SELECT json_array_elements_text(%s::json)))"
        query = f"SELECT {columns} FROM {table} WHERE {key} = {wanted}"  # noqa: S608
        return connection.exec_driver_sql(query, (msgspec.json.encode(ids).decode(),)).fetchall()

    def insert(self, connection: Connection, table: Table, rows: list[Run] | list[Attempt]) -> None:
        connection.exec_driver_sql(_postgres_insert(table), (msgspec.json.encode(rows).decode(),))

    def update(self, connection: Connection, table: Table, columns: Columns, rows: list[Values]) -> None:
        names = columns + _KEYS[table.name]
        values = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()
        connection.exec_driver_sql(_postgres_update(table, columns), (values,))


_SQLITE, _POSTGRES = Sqlite(), Postgres()


def dialect_of(connection: Connection) -> Dialect:
    """How to speak to the database of `connection`."""
    return _POSTGRES if connection.dialect.name == "postgresql" else _SQLITE


def batch_of(name: str) -> int:
    """The most entries that one transaction on this kind of database should have: fewer on SQLite, where all
    other writers wait for its end."""
    return _POSTGRES.batch if name == "postgresql" else _SQLITE.batch


@cache
def _getter(table: str, columns: Columns) -> Callable[[Values], Values]:
    names = _NAMES[table]
    return itemgetter(*(names.index(name) for name in columns))


@cache
def _changed(table: str, flags: tuple[bool, ...]) -> Columns:
    """All columns of the groups in which one has changed."""
    changed = {name for name, flag in zip(_NAMES[table], flags, strict=True) if flag}
    return tuple(name for group in _GROUPS[table] if changed.intersection(group) for name in group)


@cache
def _sqlite_insert(table: str) -> str:
    names = _NAMES[table]
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({_marks(names)})"  # noqa: S608


@cache
def _sqlite_update(table: str, columns: Columns) -> str:
    values = ", ".join(f"{name} = ?" for name in columns)
    return f"UPDATE {table} SET {values} WHERE {' AND '.join(f'{k} = ?' for k in _KEYS[table])}"  # noqa: S608


@cache
def _postgres_insert(table: Table) -> str:
    names = ", ".join(table.c.keys())
    return f"INSERT INTO {table.name} ({names}) SELECT {names} FROM {_source(table, table.c.keys())}"  # noqa: S608


@cache
def _postgres_update(table: Table, columns: Columns) -> str:
    keys = _KEYS[table.name]
    values = ", ".join(f"{name} = s.{name}" for name in columns)
    where = " AND ".join(f"t.{name} = s.{name}" for name in keys)
    source = _source(table, columns + keys)
    return f"UPDATE {table.name} AS t SET {values} FROM {source} WHERE {where}"  # noqa: S608


def _source(table: Table, names: Iterable[str]) -> str:
    dialect: Any = postgresql.dialect  # untyped in SQLAlchemy
    kinds = (f"{name} {table.c[name].type.compile(dialect())}" for name in names)
    return f"json_to_recordset(%s::json) AS s({', '.join(kinds)})"


def _marks(names: Columns) -> str:
    return ", ".join("?" * len(names))
