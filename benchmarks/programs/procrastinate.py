# mypy: disable-error-code="import-not-found, untyped-decorator"
"""procrastinate, which keeps its tasks in PostgreSQL: https://procrastinate.readthedocs.io, "Quickstart"."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector

from benchmarks import work
from benchmarks.program import CHUNK, Absent, Looping

_SERVER = os.environ.get("BENCHMARK_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432")
_DATABASE = f"benchmark_{os.getpid()}_{uuid.uuid4().hex[:8]}"

app: Any = App(connector=PsycopgConnector(conninfo=f"{_SERVER.rstrip('/')}/{_DATABASE}"))
TASKS = {
    work.EMPTY: app.task(name=work.EMPTY)(work.empty),
    work.SLEEPER: app.task(name=work.SLEEPER)(work.sleeper),
}


@asynccontextmanager
async def _opened() -> AsyncIterator[None]:
    try:
        server = await psycopg.AsyncConnection.connect(
            f"{_SERVER.rstrip('/')}/postgres", autocommit=True, connect_timeout=3
        )
    except psycopg.Error as error:
        raise Absent(f"PostgreSQL does not answer ({error}); BENCHMARK_POSTGRES_URL names another") from None
    async with server:
        await server.execute(f"CREATE DATABASE {_DATABASE}")
        try:
            async with app.open_async():
                await app.schema_manager.apply_schema_async()
                yield
        finally:
            await server.execute(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


async def _one(task: str) -> None:
    await TASKS[task].defer_async()


async def _many(task: str, count: int) -> None:
    nothing: dict[str, Any] = {}
    for start in range(0, count, CHUNK):
        await TASKS[task].batch_defer_async(*([nothing] * min(CHUNK, count - start)))


SENDER = Looping(one=_one, many=_many, opened=_opened)
