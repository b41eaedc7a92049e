"""Connections to the database, for code with and without asyncio, before and after a fork."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from errands.core.errors import ConfigurationError

_READING = "errands_reading"
_SQLITE = {"sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"}
_POSTGRES = {"postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg_async"}


class Database:
    """One SQLite file or one PostgreSQL database. Connects when first used; safe to make before a fork.

    An application's own tables may live in the same database and use the same `Database`.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user:password@host/name`
            (the driver is always psycopg 3, with asyncio or without).
        options: passed on to SQLAlchemy's `create_engine` (`pool_size`, `echo`…).

    Raises:
        ConfigurationError: the URL names another database, or one that lives in memory only.
    """

    def __init__(self, url: str | URL, **options: Any) -> None:
        self.url, self._async_url = _urls(url)
        self._options: dict[str, Any] = {"pool_pre_ping": self.url.get_backend_name() != "sqlite", **options}
        self._pid = os.getpid()
        self._engine: Engine | None = None
        # An async engine's connections belong to the event loop they were made in.
        self._async_engines: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncEngine] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"Database({self.url.render_as_string(hide_password=True)!r})"

    @property
    def dialect(self) -> str:
        """`"sqlite"` or `"postgresql"`."""
        return self.url.get_backend_name()

    @property
    def engine(self) -> Engine:
        """The engine for code without asyncio."""
        self._leave_parent()
        if self._engine is None:
            engine = create_engine(self.url, **self._options)
            if self.dialect == "sqlite":
                _prepare_sqlite(engine)
            self._engine = engine
        return self._engine

    @property
    def async_engine(self) -> AsyncEngine:
        """The engine of the running event loop.

        Raises:
            RuntimeError: no event loop runs here.
        """
        self._leave_parent()
        loop = asyncio.get_running_loop()
        engine = self._async_engines.get(loop)
        if engine is None:
            for closed in [other for other in self._async_engines if other.is_closed()]:
                self._async_engines.pop(closed).sync_engine.dispose(close=False)
            engine = create_async_engine(self._async_url, **self._options)
            if self.dialect == "sqlite":
                _prepare_sqlite(engine.sync_engine)
            self._async_engines[loop] = engine
        return engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An ORM session: committed at the end of the block, rolled back on an error."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @asynccontextmanager
    async def async_session(self) -> AsyncIterator[AsyncSession]:
        """`session` for asyncio."""
        async with AsyncSession(self.async_engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction: committed at the end of the block, rolled back on an error."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for queries. On SQLite it neither waits for writers nor keeps them waiting."""
        with self.engine.connect() as connection:
            yield connection.execution_options(**{_READING: True})

    @asynccontextmanager
    async def async_writing(self) -> AsyncIterator[AsyncConnection]:
        """`writing` for asyncio."""
        async with self.async_engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def async_reading(self) -> AsyncIterator[AsyncConnection]:
        """`reading` for asyncio. `errands.store.reads` is called through it:
        `await connection.run_sync(reads.run, run_id)`."""
        async with self.async_engine.connect() as connection:
            yield await connection.execution_options(**{_READING: True})

    def upgrade(self) -> None:
        """Bring Errands' own tables up to date. Any number of processes may ask at once."""
        if self.dialect == "sqlite" and self.url.database:
            Path(self.url.database).parent.mkdir(parents=True, exist_ok=True)
        from errands.store.migrate import upgrade  # Alembic is slow to import, and few processes need it

        upgrade(self.engine)

    def dispose(self) -> None:
        """Close the idle connections of the engine without asyncio. It may be used again afterwards."""
        self._leave_parent()
        if self._engine is not None:
            self._engine.dispose()

    async def adispose(self) -> None:
        """Close the idle connections of the running event loop's engine; await it before the loop ends."""
        self._leave_parent()
        engine = self._async_engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.dispose()

    def _leave_parent(self) -> None:
        """After a fork, leave the parent's connections to the parent: closing them would end its sessions."""
        if self._pid == os.getpid():
            return
        if self._engine is not None:
            self._engine.dispose(close=False)
        for engine in self._async_engines.values():
            engine.sync_engine.dispose(close=False)
        self._pid, self._engine, self._async_engines = os.getpid(), None, WeakKeyDictionary()


def _urls(url: str | URL) -> tuple[URL, URL]:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigurationError(f"database URL: {exc}; write sqlite:///path or postgresql://…") from exc
    if parsed.drivername in _SQLITE:
        if not parsed.database or parsed.database == ":memory:" or "mode=memory" in str(url):
            raise ConfigurationError(
                "database URL: several processes share the database, so SQLite needs a file"
            )
        return parsed.set(drivername="sqlite"), parsed.set(drivername="sqlite+aiosqlite")
    if parsed.drivername in _POSTGRES:
        parsed = parsed.set(drivername="postgresql+psycopg")
        return parsed, parsed
    raise ConfigurationError(
        f"database URL: {parsed.drivername!r} is not supported; write sqlite:///path or postgresql://…"
    )


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(dbapi_connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late (before the first write): two sessions that read and then
        # write would fail at once instead of waiting. Ours is sent by `begun`.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA journal_mode = WAL")
        # In WAL mode NORMAL cannot damage the file; a power cut may undo the last commits.
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        reading = connection.get_execution_options().get(_READING)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
