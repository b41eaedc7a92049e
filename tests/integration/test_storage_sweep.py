"""Puts and sweeps that fail, cross each other or stand still: on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import storage as kit
from errands.kits.storage import (
    Files,
    FolderStorage,
    LinkSigner,
    Storage,
    StorageUnavailable,
    StoredFileNotFound,
    Swept,
    register,
)
from errands.kits.storage import files as files_module
from errands.kits.storage.fake import MemoryStorage
from errands.kits.storage.tables import files as rows

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


async def registered(database: Database) -> dict[str, int]:
    async with database.async_reading() as connection:
        return {row.key: row.size for row in await connection.execute(select(rows.c.key, rows.c.size))}


class Failing(MemoryStorage):
    """Fails as told, once for each entry."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    async def put(self, data: bytes | Path, **options: object) -> kit.StoredFile:  # type: ignore[override]
        if "put" in self.broken:
            raise StorageUnavailable("away")
        return await super().put(data, **options)  # type: ignore[arg-type]

    async def delete(self, key: str) -> None:
        if key in self.broken or "delete" in self.broken:
            raise StorageUnavailable("away")
        await super().delete(key)


async def test_a_put_that_failed_takes_no_room_and_leaves_nothing(store: Database, now: FakeClock) -> None:
    storage = Failing()
    files = Files(storage, store, quota=1000)
    key = Storage.key_for("reports", "weekly", ".txt")
    await files.put(b"x" * 300, content_type=TEXT, owner="7", key=key, referrer="report:1")
    storage.broken = {"put"}
    for attempt in range(3):
        with pytest.raises(StorageUnavailable):
            await files.put(b"x" * 600, content_type=TEXT, owner="7")
        with pytest.raises(StorageUnavailable):
            await files.put(b"x" * (400 + attempt), content_type=TEXT, owner="7", key=key)
        assert await files.usage("7") == 300
    now.advance(DAY * 2)
    assert (await files.sweep()).files == 3  # rows without bytes
    assert await registered(store) == {key: 300}


async def test_a_file_that_cannot_be_deleted_is_left_to_the_next_sweep(
    store: Database, now: FakeClock
) -> None:
    storage = Failing()
    files = Files(storage, store)
    put = [await files.put(b"x", content_type=TEXT) for _ in range(5)]
    now.advance(DAY * 2)
    storage.broken = {put[2].key}
    assert await files.sweep(batch=2) == Swept(4, 4, 1, 0)
    with pytest.raises(StorageUnavailable, match="away"):
        await files.sweep()
    with pytest.raises(StoredFileNotFound, match="being deleted"):
        await files.keep(put[2].key, referrer="late:1")
    storage.broken = set()
    assert await files.sweep() == Swept(1, 1, 0, 0)
    assert (storage.files, await registered(store)) == ({}, {})


async def test_a_file_that_is_written_anew_while_it_is_to_go_stays(
    files: Files, storage: MemoryStorage, store: Database, now: FakeClock
) -> None:
    key = Storage.key_for("reports", "weekly", ".txt")
    await files.put(b"old", content_type=TEXT, key=key)
    now.advance(DAY * 2)
    async with store.async_writing() as connection:  # as a sweep that is killed here
        assert await connection.run_sync(register.mark, [key], clock.now() - DAY) == [key]
    await files.put(b"new", content_type=TEXT, key=key)
    assert await files._remove(key) is None  # the sweep goes on, too late
    assert await storage.read(key) == b"new"
    assert (await files.sweep()).files == 0


async def test_a_sweep_and_one_who_begins_to_refer_do_not_cross(
    files: Files, storage: MemoryStorage, store: Database, now: FakeClock
) -> None:
    put = [await files.put(b"x", content_type=TEXT) for _ in range(30)]
    now.advance(DAY * 2)
    kept = []

    async def keep(key: str) -> None:
        try:
            async with store.async_session() as session:
                await files.keep(key, referrer="letter:1", session=session)
                await asyncio.sleep(0)
        except StoredFileNotFound:
            return
        kept.append(key)

    sweeps = [files.sweep(batch=4) for _ in range(2)]
    results = await asyncio.gather(*sweeps, *[keep(file.key) for file in put])
    swept = [result for result in results if isinstance(result, Swept)]
    assert sum(one.files for one in swept) == 30 - len(kept)
    assert set(storage.files) == set(kept) == set(await registered(store))


async def test_a_slow_writer_is_not_swept_away(
    files: Files, store: Database, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_RENEWED", 0.01)

    async def touched() -> object:
        async with store.async_reading() as connection:
            return await connection.scalar(select(rows.c.touched_at))

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        now.advance(DAY * 2)
        async with asyncio.timeout(30):
            while await touched() != clock.now():
                await asyncio.sleep(0.01)
        assert (await files.sweep()).files == 0
        yield b"second"

    file = await files.put_stream(slow(), content_type=TEXT)
    assert file.size == 11
    assert await registered(store) == {file.key: 11}


async def test_a_writer_that_stood_still_too_long_is_told(
    files: Files, storage: MemoryStorage, now: FakeClock
) -> None:
    async def frozen() -> AsyncIterator[bytes]:
        yield b"first"
        now.advance(DAY * 2)
        assert (await files.sweep()).files == 1

    with pytest.raises(StorageUnavailable, match="put it again"):
        await files.put_stream(frozen(), content_type=TEXT)


async def test_a_grace_that_is_too_short_is_refused(files: Files) -> None:
    with pytest.raises(ValueError, match="older_than"):
        await files.sweep(older_than=timedelta(minutes=9))
    with pytest.raises(ValueError, match="batch=0"):
        await files.sweep(batch=0)


async def test_a_folder_is_rid_of_what_killed_writers_left(
    store: Database, tmp_path: Path, now: FakeClock
) -> None:
    now.advance(clock.Clock().timestamp() - now.timestamp())
    storage = FolderStorage(tmp_path, LinkSigner(b"k" * 32, "https://school.example"))
    file = await Files(storage, store).put(b"x", content_type=TEXT, suffix=".txt", referrer="a:1")
    place = tmp_path / file.key
    left = place.with_name(f"{place.stem}-{'0' * 16}.txt")
    for path in (left, left.with_name(left.name + ".json")):
        path.write_bytes(b"half")
    assert (await Files(storage, store).sweep()).pieces == 0
    now.advance(DAY * 2)
    assert (await Files(storage, store).sweep()).pieces == 2
    assert await storage.read(file.key) == b"x"
    assert len(list(place.parent.iterdir())) == 2
