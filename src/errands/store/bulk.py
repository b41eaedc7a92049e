"""Many rows in few statements."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, Text, bindparam, cast, column, func, insert, select, update
from sqlalchemy.dialects.postgresql import JSON

from errands.store.row import Row
from errands.store.types import Json, PlainText

Values = dict[str, Any]


def write(connection: Connection, table: Table, rows: Iterable[Row]) -> None:
    """Write what changed: one statement for all new rows, and one for each set of columns that changed
    together."""
    key = tuple(column.name for column in table.primary_key)
    names = tuple(table.c.keys())
    new: list[Values] = []
    changed: defaultdict[tuple[str, ...], list[Values]] = defaultdict(list)
    for row in rows:
        if row.new:
            new.append({name: row.values.get(name) for name in names})
        elif row.changes:
            changed[tuple(sorted(row.changes))].append({name: row.values[name] for name in key} | row.changes)
    one_by_one = connection.dialect.name == "sqlite"
    if new:
        (_insert_each if one_by_one else _insert_all)(connection, table, names, new)
    for columns, some in changed.items():
        (_update_each if one_by_one else _update_all)(connection, table, key, columns, some)


def _insert_each(connection: Connection, table: Table, names: tuple[str, ...], rows: list[Values]) -> None:
    connection.execute(table.insert(), rows)


def _update_each(
    connection: Connection, table: Table, key: tuple[str, ...], columns: tuple[str, ...], rows: list[Values]
) -> None:
    where = (table.c[name] == bindparam(f"_{name}") for name in key)
    statement = update(table).where(*where).values({name: bindparam(name) for name in columns})
    connection.execute(statement, [row | {f"_{name}": row[name] for name in key} for row in rows])


# PostgreSQL gets all rows as one JSON value: it costs client and server a third of a message a row.


def _insert_all(connection: Connection, table: Table, names: tuple[str, ...], rows: list[Values]) -> None:
    source = _recordset(table, names)
    statement = insert(table).from_select(list(names), select(*(source.c[name] for name in names)))
    connection.execute(statement, {"rows": _as_json(connection, table, names, rows)})


def _update_all(
    connection: Connection, table: Table, key: tuple[str, ...], columns: tuple[str, ...], rows: list[Values]
) -> None:
    source = _recordset(table, key + columns)
    where = (table.c[name] == source.c[name] for name in key)
    statement = update(table).where(*where).values({name: source.c[name] for name in columns})
    connection.execute(statement, {"rows": _as_json(connection, table, key + columns, rows)})


def _recordset(table: Table, names: tuple[str, ...]) -> Any:
    rows = cast(bindparam("rows", type_=Text), JSON)
    columns = (column(name, table.c[name].type) for name in names)
    return func.json_to_recordset(rows).table_valued(*columns).render_derived(name="source", with_types=True)


def _as_json(connection: Connection, table: Table, names: tuple[str, ...], rows: list[Values]) -> str:
    for name in names:
        kind = table.c[name].type
        if isinstance(kind, Json | PlainText):
            for row in rows:
                row[name] = kind.process_bind_param(row[name], connection.dialect)
    return json.dumps(rows, default=datetime.isoformat)
