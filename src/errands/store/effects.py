"""Effects in SQL, where they outlive workers and Valkey, and the ledger's checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError

from errands.core import clock
from errands.core.effects import EffectRow, Standing
from errands.core.errors import ErrandsError
from errands.core.states import State
from errands.store.engine import Database
from errands.store.tables import checkpoints, effects, runs

_COLUMNS = tuple(effects.c[name] for name in EffectRow.__dataclass_fields__)


class DatabaseHeld(ErrandsError):
    """An effect could not be claimed, since the task itself keeps SQLite's only place for writers."""


class SqlEffects:
    """See `EffectStore`. Each method is a transaction of its own, whatever the task's session is at.

    Args:
        database: gives the database when it is first needed.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database

    def claim(self, row: EffectRow) -> EffectRow | None:
        """Keep `row`, unless one with its key is there; then return that one.

        Raises:
            DatabaseHeld: SQLite is being written to for half a minute, most likely by the task itself.
        """
        while True:
            with self._writing() as connection:
                if _add(connection, row):
                    return None
                there = _one(connection.execute(_of(row.scope, row.name)))
            if there is not None:  # else it was let go between the two
                return there

    def get(self, scope: str, name: str) -> EffectRow | None:
        """The row, if there is one."""
        with self._database().reading() as connection:
            return _one(connection.execute(_of(scope, name)))

    def put(self, row: EffectRow, *, token: str | None) -> bool:
        """Replace the row if `token` holds it (None: whoever does, or nobody). Whether it was replaced."""
        with self._writing() as connection:
            where = (effects.c.scope == row.scope) & (effects.c.name == row.name)
            if token is None:
                connection.execute(delete(effects).where(where))
                return _add(connection, row)
            values = {name: value for name, value in asdict(row).items() if name not in ("scope", "name")}
            held = effects.update().where(where & (effects.c.token == token))
            return connection.execute(held.values(values)).rowcount == 1

    def drop(self, row: EffectRow) -> None:
        """Forget the row, if its token still holds it."""
        with self._writing() as connection:
            mine = (
                (effects.c.scope == row.scope) & (effects.c.name == row.name) & (effects.c.token == row.token)
            )
            connection.execute(delete(effects).where(mine))

    def of_run(self, run_id: str) -> list[EffectRow]:
        """The effects that a run claimed last, in the order of their beginning."""
        with self._database().reading() as connection:
            return of_run(connection, run_id)

    def checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """How far the ledger knows that the run's loops came; None for one that had succeeded."""
        with self._database().reading() as connection:
            return read_checkpoint(connection, run_id)

    async def apart(self, function: Callable[[], Any]) -> Any:
        """Call one of the above without holding up the event loop."""
        return await asyncio.to_thread(function)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._database().writing() as connection:
                yield connection
        except OperationalError as exc:
            if "database is locked" not in str(exc):
                raise
            raise DatabaseHeld(
                "an effect is noted in a transaction of its own, and SQLite has room for one writer: "
                "commit the task's session before `run.once`"
            ) from exc


def of_run(connection: Connection, run_id: str) -> list[EffectRow]:
    """The effects that a run claimed last, in the order of their beginning."""
    query = select(*_COLUMNS).where(effects.c.run_id == run_id).order_by(effects.c.at, effects.c.name)
    return [_row(found) for found in connection.execute(query).mappings()]


def unknown(connection: Connection, limit: int) -> list[EffectRow]:
    """Up to `limit` effects that may have happened or not, the newest first."""
    query = select(*_COLUMNS).where(effects.c.state == Standing.UNKNOWN.value)
    return [
        _row(found)
        for found in connection.execute(query.order_by(effects.c.at.desc()).limit(limit)).mappings()
    ]


def settle(connection: Connection, row: EffectRow, *, done: bool, result: Any = None) -> bool:
    """Note what a person found out about an effect that is not known to be done. False where it has moved on.

    One that is done stays, with `result`; one that is not is forgotten, and may be done again.
    """
    same = (effects.c.scope == row.scope) & (effects.c.name == row.name) & (effects.c.token == row.token)
    mine = same & (effects.c.state != Standing.DONE.value)
    if done:
        values = {"state": Standing.DONE.value, "result": result, "at": clock.now()}
        return connection.execute(effects.update().where(mine).values(values)).rowcount == 1
    return connection.execute(delete(effects).where(mine)).rowcount == 1


def read_checkpoint(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """The checkpoint that the ledger has of a run; None for one that had succeeded, and starts anew."""
    query = (
        select(checkpoints.c.checkpoint)
        .join_from(checkpoints, runs, runs.c.id == checkpoints.c.run_id, isouter=True)
        .where(checkpoints.c.run_id == run_id)
        .where(runs.c.state.is_(None) | (runs.c.state != State.SUCCEEDED.value))
    )
    found: dict[str, Any] | None = connection.scalar(query)
    return found


def save_checkpoints(connection: Connection, told: Mapping[str, tuple[str, datetime] | None]) -> None:
    """Keep checkpoints, unless newer ones are there; forget those that are None.

    Args:
        connection: in the recorder's transaction.
        told: of each run its checkpoint as JSON, and when it was told.
    """
    forgotten = [run_id for run_id, value in told.items() if value is None]
    if forgotten:
        connection.execute(delete(checkpoints).where(checkpoints.c.run_id.in_(forgotten)))
    rows = [
        {"run_id": run_id, "checkpoint": json.loads(value[0]), "at": value[1]}
        for run_id, value in sorted(told.items())
        if value is not None
    ]
    if rows:
        statement = _dialect(connection).insert(checkpoints)
        newer = statement.on_conflict_do_update(
            index_elements=["run_id"],
            set_={"checkpoint": statement.excluded.checkpoint, "at": statement.excluded.at},
            where=checkpoints.c.at <= statement.excluded.at,
        )
        connection.execute(newer, rows)


def prune_effects(connection: Connection, older_than: timedelta, *, limit: int = 1000) -> int:
    """Delete up to `limit` effects of runs that the ledger does not have (any more). Returns how many."""
    old = (
        select(effects.c.scope, effects.c.name)
        .where(effects.c.at < clock.now() - older_than)
        .where(~select(runs.c.id).where(runs.c.id == effects.c.run_id).exists())
        .limit(limit)
    )
    keys = connection.execute(old).all()
    for scope, name in keys:
        connection.execute(delete(effects).where(effects.c.scope == scope, effects.c.name == name))
    return len(keys)


def _of(scope: str, name: str) -> Select[Any]:
    return select(*_COLUMNS).where(effects.c.scope == scope, effects.c.name == name)


def _add(connection: Connection, row: EffectRow) -> bool:
    statement = _dialect(connection).insert(effects).values(asdict(row)).on_conflict_do_nothing()
    return connection.execute(statement.returning(effects.c.name)).first() is not None


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite


def _one(result: Any) -> EffectRow | None:
    found = result.mappings().first()
    return _row(found) if found else None


def _row(values: Any) -> EffectRow:
    return EffectRow(**{**values, "state": Standing(values["state"])})
