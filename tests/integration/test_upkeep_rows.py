"""Old rows, deleted from real databases: in chunks, by several at once, over kills."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    event,
    func,
    insert,
    select,
)

from errands import Database, Errands, Run, Settings
from errands.core import clock
from errands.kits import upkeep
from errands.kits.upkeep import Upkeep
from errands.store.types import UtcDateTime
from processes import Worker, until

metadata = MetaData()
notes = Table(
    "app_notes", metadata, Column("id", Integer, primary_key=True), Column("at", UtcDateTime),
    Column("read", Boolean, nullable=False, default=True), Column("text", Text, default=""),
)  # fmt: skip
Index("app_notes_at", notes.c.at)
# As in sample/upkeep_app.py.
logs = Table(
    "app_logs", MetaData(), Column("id", Integer, primary_key=True), Column("at", UtcDateTime, index=True)
)
seats = Table(
    "app_seats", metadata, Column("room", Text, primary_key=True),
    Column("number", Integer, primary_key=True), Column("day", Date, index=True),
)  # fmt: skip

DAYS = timedelta(days=30)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Database]:
    metadata.create_all(database.engine)
    yield database
    await database.adispose()


def app_on(database: Database, tmp_path: Path, **changes: Any) -> Errands:
    url = database.url.render_as_string(hide_password=False)
    app = Errands("school", settings=Settings(inline=True, home=tmp_path, database_url=url))
    given = {"table": notes, "column": notes.c.at, "older_than": DAYS, "chunk": 10, **changes}
    app.use(upkeep.kit([Upkeep("clean", **given)], database=lambda: database))
    return app


async def clean(app: Errands, **arguments: Any) -> Any:
    """The task's own function, on this loop."""
    return await app.tasks["clean"].function(run=Run("r", "clean"), **arguments)


def add(database: Database, count: int, *, days: float, **values: Any) -> None:
    with database.writing() as connection:
        when = clock.now() - timedelta(days=days)
        connection.execute(
            insert(notes), [{"at": when - timedelta(seconds=n), **values} for n in range(count)]
        )


def left(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(notes)) or 0


async def test_what_is_old_goes_in_chunks_and_the_rest_stays(store: Database, tmp_path: Path) -> None:
    add(store, 95, days=40)
    add(store, 1, days=29)
    add(store, 20, days=50, read=False)
    add(store, 5, days=99, at=None)  # of no known age
    app = app_on(store, tmp_path, where=notes.c.read)
    with store.reading() as connection:  # of those that stay, the one that is read
        newest = connection.scalar(select(func.max(notes.c.at)))
    assert isinstance(newest, datetime)
    told = await clean(app, dry_run=True)
    assert (told["dry_run"], told["would_delete"]) == (True, 95)
    assert left(store) == 121
    assert await clean(app) == {
        "deleted": 95, "chunks": 10, "oldest_left": newest.isoformat(), "complete": True,
    }  # fmt: skip
    assert left(store) == 26
    assert (await clean(app))["deleted"] == 0


async def test_no_transaction_holds_more_than_a_chunk(store: Database, tmp_path: Path) -> None:
    add(store, 50, days=40)
    deleted: list[int] = []

    def executed(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            deleted.append(cursor.rowcount)

    def committed(_: Any) -> None:
        deleted.append(0)

    engine = store.async_engine.sync_engine
    event.listen(engine, "after_cursor_execute", executed)
    event.listen(engine, "commit", committed)
    await clean(app_on(store, tmp_path))
    assert [count for count in deleted if count] == [10] * 5
    assert "10, 10" not in str(deleted), "each in a transaction of its own"


async def test_keys_of_several_columns_and_days(store: Database, tmp_path: Path) -> None:
    today = clock.now().date()
    with store.writing() as connection:
        for room in ("a", "b"):
            days = [{"room": room, "number": n, "day": today - timedelta(days=n)} for n in range(40)]
            connection.execute(insert(seats), days)
    app = app_on(store, tmp_path, table=seats, column="day", chunk=7)
    done = await clean(app)
    assert (done["deleted"], done["oldest_left"]) == (18, (today - DAYS).isoformat())
    with store.reading() as connection:
        assert connection.scalar(select(func.min(seats.c.day))) == date.fromisoformat(done["oldest_left"])


async def test_sessions_whose_time_has_passed(store: Database, tmp_path: Path) -> None:
    add(store, 3, days=0.01)
    add(store, 3, days=-1)
    assert (await clean(app_on(store, tmp_path, older_than=timedelta(0))))["deleted"] == 3


async def test_several_at_once_delete_each_row_once(store: Database, tmp_path: Path) -> None:
    add(store, 200, days=40)
    archived: list[int] = []

    async def archive(rows: list[dict[str, Any]]) -> None:
        archived.extend(row["id"] for row in rows)
        await asyncio.sleep(0)

    apps = [app_on(store, tmp_path, archive=archive) for _ in range(3)]
    done = await asyncio.gather(*[clean(app) for app in apps])
    assert sum(one["deleted"] for one in done) == 200
    assert left(store) == 0
    assert len(archived) == len(set(archived)) == 200


async def test_what_cannot_be_archived_stays(store: Database, tmp_path: Path) -> None:
    add(store, 30, days=40, text="a")
    seen: list[str] = []

    def archive(rows: list[dict[str, Any]]) -> None:
        seen.extend(row["text"] for row in rows)
        if len(seen) == 20:
            raise OSError("the archive is full")

    app = app_on(store, tmp_path, archive=archive)
    with pytest.raises(OSError, match="full"):
        await clean(app)
    assert (seen, left(store)) == (["a"] * 20, 20)
    assert (await clean(app))["deleted"] == 20


async def test_a_writer_gets_its_turn(store: Database, tmp_path: Path) -> None:
    add(store, 400, days=40)
    app = app_on(store, tmp_path)
    written = 0
    cleaning = asyncio.create_task(clean(app))
    while not cleaning.done():
        async with store.async_writing() as connection:
            await connection.execute(insert(notes).values(at=clock.now(), read=True, text="new"))
        written += 1
    assert (await cleaning)["deleted"] == 400
    assert written > 1
    assert left(store) == written


async def test_a_run_tells_how_far_it_is(store: Database, tmp_path: Path) -> None:
    add(store, 25, days=40)
    app = app_on(store, tmp_path)
    result = await asyncio.to_thread(app.tasks["clean"].delay)
    assert (await asyncio.to_thread(result.get))["chunks"] == 3
    progress = app.live.get(result.id).facts["progress"]  # type: ignore[union-attr]
    assert (progress["current"], progress["total"], progress["note"]) == (25, 25, "25 rows")


# -- workers


@pytest.fixture
def world(database: Database, valkey_url: str, key_prefix: str, tmp_path: Path) -> dict[str, str]:
    return {
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_KEY_PREFIX": key_prefix,
        "ERRANDS_HOME": str(tmp_path),
        "ERRANDS_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "UPKEEP_ARCHIVE": str(tmp_path / "archive"),
    }


def test_a_worker_that_is_killed_is_gone_on_for_and_all_is_counted(
    world: dict[str, str], database: Database, tmp_path: Path
) -> None:
    settings = Settings(
        broker_url=world["ERRANDS_BROKER_URL"], key_prefix=world["ERRANDS_KEY_PREFIX"], home=tmp_path
    )
    app = Errands("upkeep", settings=settings)
    logs.create(database.engine)
    old = clock.now() - timedelta(days=100)
    with database.writing() as connection:
        connection.execute(insert(logs), [{"at": old + timedelta(seconds=n)} for n in range(20_000)])
    archive = tmp_path / "archive"

    def told() -> int:
        """Rows that the run has told of so far."""
        return int(((app.live.checkpoint(result.id) or {}).get("") or {"key": [0]})["key"][0])

    result = app.send_task("cleanup_old_logs")
    first = Worker(world, tmp_path / "first.log", "-c", "1", app="upkeep_app:app").wait_until_ready()
    until(told, 60, "some chunks are gone")
    first.kill()
    before = told()
    with database.reading() as connection:
        rest = connection.scalar(select(func.count()).select_from(logs)) or 0
    assert 0 < rest < 20_000
    second = Worker(world, tmp_path / "second.log", "-c", "1", app="upkeep_app:app").wait_until_ready()
    try:
        done = result.get(timeout=120)
    finally:
        second.stop()
    with database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(logs)) == 0
    assert (done["complete"], done["oldest_left"]) == (True, None)
    # What the first one did within its last second may not have been told any more.
    assert before + rest <= done["deleted"] <= 20_000
    archived = [int(word) for word in archive.read_text().split()]
    assert len(set(archived)) == 20_000
    assert len(archived) - len(set(archived)) <= 20, "at most the chunk at hand is archived twice"
