"""Who refers to which file, quotas, sweeps: on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, select

from errands import Database, Errands, Settings
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import storage as kit
from errands.kits.storage import (
    FileInUse,
    Files,
    FileTooLarge,
    QuotaExceeded,
    Storage,
    StoredFileNotFound,
    Swept,
)
from errands.kits.storage.fake import MemoryStorage
from errands.kits.storage.tables import files as rows
from errands.kits.storage.tables import references

TEXT = "text/plain"
DAY = timedelta(days=1)


@pytest.fixture
def now() -> Iterator[FakeClock]:
    with clock.use(FakeClock()) as made:
        assert isinstance(made, FakeClock)
        yield made


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Database]:
    yield database
    await database.adispose()


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def files(store: Database, storage: MemoryStorage) -> Files:
    return Files(storage, store, quota=1000)


async def chunks(size: int, piece: int = 100) -> AsyncIterator[bytes]:
    for _ in range(size // piece):
        yield b"x" * piece


async def registered(database: Database) -> dict[str, int]:
    async with database.async_reading() as connection:
        return {row.key: row.size for row in await connection.execute(select(rows.c.key, rows.c.size))}


# -- referring


async def test_what_nobody_refers_to_goes_after_its_grace(
    files: Files, storage: MemoryStorage, now: FakeClock
) -> None:
    kept = await files.put(b"a" * 10, content_type=TEXT, owner="7", referrer="certificate:1")
    loose = await files.put(b"b" * 20, content_type=TEXT, owner="7")
    assert await files.usage("7") == 30
    assert await files.sweep() == Swept(0, 0, 0, 0)
    now.advance(DAY + timedelta(seconds=1))
    new = await files.put(b"c", content_type=TEXT, owner="7")
    assert await files.sweep() == Swept(1, 20, 0, 0)
    assert set(storage.files) == {kept.key, new.key}
    assert not await storage.exists(loose.key)
    assert await files.usage("7") == 11


async def test_a_file_stays_as_long_as_anybody_needs_it_and_its_grace_after(
    files: Files, storage: MemoryStorage, now: FakeClock
) -> None:
    file = await files.put(b"x", content_type=TEXT)
    for referrer in ("letter:1", "letter:2", "letter:2"):
        await files.keep(file.key, referrer=referrer)
    assert await files.referrers(file.key) == ["letter:1", "letter:2"]
    now.advance(DAY * 40)
    assert await files.release("letter:1") == []
    assert (await files.sweep()).files == 0
    assert await files.release("letter:2") == [file.key]
    assert await files.release("letter:2") == []
    assert (await files.sweep()).files == 0, "the grace begins when the last one lets go"
    now.advance(DAY + timedelta(seconds=1))
    assert (await files.sweep()).files == 1
    with pytest.raises(StoredFileNotFound):
        await files.keep(file.key, referrer="letter:3")


async def test_keeping_is_part_of_ones_own_transaction(files: Files, store: Database) -> None:
    file = await files.put(b"x", content_type=TEXT)

    class Undone(Exception):
        pass

    with pytest.raises(Undone):
        async with store.async_session() as session:
            await files.keep(file.key, referrer="certificate:1", session=session)
            raise Undone
    assert await files.referrers(file.key) == []
    async with store.async_session() as session:
        await files.keep(file.key, referrer="certificate:1", session=session)
    assert await files.referrers(file.key) == ["certificate:1"]
    with store.session() as plain:
        files.keep_in(plain, file.key, referrer="certificate:2")
        assert files.release_in(plain, "certificate:1") == []
    assert await files.referrers(file.key) == ["certificate:2"]


async def test_a_file_that_was_put_past_the_register_joins_it(
    files: Files, storage: MemoryStorage, store: Database, now: FakeClock
) -> None:
    file = await storage.put(b"x" * 50, content_type=TEXT)
    now.advance(DAY * 2)
    assert (await files.sweep()).files == 0, "what the register does not know is not its own"
    with store.session() as plain, pytest.raises(StoredFileNotFound, match=r"Files\.put"):
        files.keep_in(plain, file.key, referrer="letter:1")
    await files.keep(file.key, referrer="letter:1", owner="7")
    assert await files.usage("7") == 50
    await files.release("letter:1")
    now.advance(DAY * 2)
    assert (await files.sweep()).files == 1
    assert storage.files == {}
    with pytest.raises(StoredFileNotFound):
        await files.keep(file.key, referrer="letter:1")


async def test_deleting_by_hand_heeds_those_who_refer_to_it(files: Files, storage: MemoryStorage) -> None:
    file = await files.put(b"x", content_type=TEXT, owner="7", referrer="profile:7")
    with pytest.raises(FileInUse, match="profile:7"):
        await files.delete(file.key)
    await files.release("profile:7")
    await files.delete(file.key)
    await files.delete(file.key)
    assert (storage.files, await files.usage("7")) == ({}, 0)


# -- quotas


async def test_a_quota_refuses_what_does_not_fit_and_says_what_is_used(
    files: Files, storage: MemoryStorage, store: Database
) -> None:
    await files.put(b"x" * 900, content_type=TEXT, owner="7")
    with pytest.raises(QuotaExceeded, match=r"7 uses 900 of 1,000 bytes and the file has 101") as refused:
        await files.put(b"x" * 101, content_type=TEXT, owner="7")
    assert (refused.value.owner, refused.value.used, refused.value.quota) == ("7", 900, 1000)
    await files.put(b"x" * 5000, content_type=TEXT)  # nobody's
    await files.put(b"x" * 1000, content_type=TEXT, owner="8")
    await files.put(b"x" * 100, content_type=TEXT, owner="7")
    with pytest.raises(QuotaExceeded):
        await files.put(b"", content_type=TEXT, owner="7")
    assert len(storage.files) == len(await registered(store)) == 4


async def test_a_stream_ends_where_the_quota_does(files: Files, storage: MemoryStorage) -> None:
    await files.put_stream(chunks(600), content_type=TEXT, owner="7")
    with pytest.raises(QuotaExceeded, match=r"7 uses 600 of 1,000 bytes"):
        await files.put_stream(chunks(500), content_type=TEXT, owner="7")
    with pytest.raises(FileTooLarge, match="200"):
        await files.put_stream(chunks(300), content_type=TEXT, owner="7", limit=200)
    file = await files.put_stream(chunks(400), content_type=TEXT, owner="7", limit=400)
    assert file.size == 400
    assert await files.usage("7") == 1000
    assert len(storage.files) == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_many_at_once_do_not_get_past_a_quota(
    files: Files, storage: MemoryStorage, streamed: bool, now: FakeClock
) -> None:
    async def one() -> bool:
        try:
            if streamed:
                await files.put_stream(chunks(300), content_type=TEXT, owner="7")
            else:
                await files.put(b"x" * 300, content_type=TEXT, owner="7")
        except QuotaExceeded:
            return False
        return True

    done = await asyncio.gather(*[one() for _ in range(8)])
    assert done.count(True) == 3
    assert await files.usage("7") == 900
    assert len(storage.files) == 3
    now.advance(DAY * 2)
    await files.sweep()
    assert await files.usage("7") == 0


async def test_quotas_may_differ_by_owner(store: Database, storage: MemoryStorage) -> None:
    files = Files(storage, store, quota=lambda owner: None if owner == "admin" else 10)
    await files.put(b"x" * 100, content_type=TEXT, owner="admin")
    with pytest.raises(QuotaExceeded):
        await files.put(b"x" * 11, content_type=TEXT, owner="7")


async def test_a_file_that_replaces_another_counts_once(files: Files) -> None:
    key = Storage.key_for("reports", "weekly", ".txt")
    for size in (800, 900, 100):
        await files.put(b"x" * size, content_type=TEXT, owner="7", key=key, referrer="report:1")
        assert await files.usage("7") == size
    assert await files.referrers(key) == ["report:1"]
    with pytest.raises(QuotaExceeded):
        await files.put(b"x" * 1001, content_type=TEXT, owner="7", key=key)
    assert await files.usage("7") == 100


async def test_what_an_owner_keeps_can_be_erased_whoever_refers_to_it(
    files: Files, storage: MemoryStorage, store: Database
) -> None:
    mine = [await files.put(b"x", content_type=TEXT, owner="7", referrer=f"a:{n}") for n in range(3)]
    other = await files.put(b"x", content_type=TEXT, owner="8")
    assert await files.erase("7") == 3
    assert set(storage.files) == {other.key}
    with pytest.raises(StoredFileNotFound):
        await files.keep(mine[0].key, referrer="a:1")
    with store.session() as plain:
        assert files.erase_in(plain, "8") == 1
    assert (await files.sweep()).files == 1
    assert (storage.files, await registered(store)) == ({}, {})


# -- the kit


async def test_tasks_are_given_the_files(store: Database, tmp_path: Path) -> None:
    app = Errands(
        "school",
        settings=Settings(
            inline=True, home=tmp_path, database_url=str(store.url.render_as_string(hide_password=False))
        ),
    )
    app.use(kit.kit(MemoryStorage(), quota=10))

    @app.task(name="keep_upload")
    async def keep_upload(owner: str, *, files: Files) -> int:
        await files.put(b"12345", content_type=TEXT, owner=owner, referrer="upload:1")
        return await files.usage(owner)

    assert await asyncio.to_thread(lambda: keep_upload.delay("7").get()) == 5


def test_the_migration_makes_the_tables_as_they_are_declared(database: Database) -> None:
    inspector = inspect(database.engine)
    for table in (rows, references):
        made = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        assert made == {column.name: bool(column.nullable) for column in table.columns}
        indexes = {index["name"]: index["column_names"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            assert indexes[str(index.name)] == [column.name for column in index.columns]
