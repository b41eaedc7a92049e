"""Processes that are killed in the middle of a put and of a sweep, and what the next sweep does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import Files, FolderStorage, LinkSigner
from errands.kits.storage.tables import files as rows

# Dies by KILL at the place that it is told, of its own hand: no other can hit it so exactly.
CHILD = """
import asyncio, os, signal, sys
from datetime import timedelta
from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import Files, FolderStorage, LinkSigner

url, root, place, later = sys.argv[1:5]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Dying(FolderStorage):
    deleted = 0

    async def put(self, data, **options):
        if place == "before the bytes":
            die()
        file = await super().put(data, **options)
        if place == "after the bytes":
            die()
        return file

    async def delete(self, key):
        Dying.deleted += 1
        if place == "before a deletion" and Dying.deleted == 4:
            die()
        await super().delete(key)
        if place == "after a deletion" and Dying.deleted == 4:
            die()

async def half():
    yield b"h" * 1_000_000
    die()

async def main():
    files = Files(Dying(root, LinkSigner(b"k" * 32, "https://school.example")), Database(url))
    if place == "amid the bytes":
        await files.put_stream(half(), content_type="text/plain", suffix=".txt", owner="7")
    elif place.endswith("the bytes"):
        await files.put(b"whole", content_type="text/plain", suffix=".txt", owner="7")
    else:
        await files.sweep(batch=3)

with clock.use(FakeClock(clock.now() + timedelta(days=float(later)))):
    asyncio.run(main())
"""

TWO_DAYS = timedelta(days=2)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Database]:
    yield database
    await database.adispose()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


def killed(store: Database, root: Path, place: str, *, later: int = 0) -> None:
    url = store.url.render_as_string(hide_password=False)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", CHILD, url, str(root), place, str(later)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == -9, done.stderr


def files_of(store: Database, root: Path) -> Files:
    return Files(FolderStorage(root, LinkSigner(b"k" * 32, "https://school.example")), store, quota=3_000_000)


async def registered(store: Database) -> list[Any]:
    async with store.async_reading() as connection:
        return list((await connection.execute(select(rows))).all())


def on_disk(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("place", ["before the bytes", "amid the bytes", "after the bytes"])
async def test_a_put_that_was_killed_is_swept_after_its_grace(
    store: Database, root: Path, place: str
) -> None:
    files = files_of(store, root)
    kept = await files.put(b"kept", content_type="text/plain", suffix=".txt", referrer="a:1", owner="7")
    killed(store, root, place)
    (left,) = [row for row in await registered(store) if row.key != kept.key]
    assert left.stored_at is None, "it was never whole"
    swept = await files.sweep()
    assert (swept.files, swept.pieces) == (0, 0), "for all that anybody knows, it is still being written"
    with clock.use(FakeClock(datetime.now(UTC) + TWO_DAYS)):
        swept = await files.sweep()
    assert (swept.files, swept.pieces) == (1, 1 if place == "amid the bytes" else 0)
    assert [row.key for row in await registered(store)] == [kept.key]
    assert len(on_disk(root)) == 2  # the bytes of the one that is kept, and its record
    assert await files.storage.read(kept.key) == b"kept"
    assert await files.usage("7") == 4


@pytest.mark.parametrize("place", ["before a deletion", "after a deletion"])
async def test_a_sweep_that_was_killed_is_gone_on_with(store: Database, root: Path, place: str) -> None:
    files = files_of(store, root)
    put = [
        await files.put(
            b"%d" % n, content_type="text/plain", suffix=".txt", referrer=f"a:{n}" if n % 2 else None
        )
        for n in range(16)
    ]
    killed(store, root, place, later=2)
    found = await registered(store)
    # Three were deleted and forgotten; of the batch at hand the row of each is there, and says so.
    assert len(found) == 13
    assert sum(row.deleting for row in found) == 3
    for file in put[1::2]:
        await files.keep(file.key, referrer="b:1")
        assert await files.storage.read(file.key)
    with clock.use(FakeClock(datetime.now(UTC) + TWO_DAYS)):
        swept = await files.sweep(batch=3)
        assert (swept.files, swept.failed) == (5, 0)
        assert (await files.sweep()).files == 0
    assert {row.key for row in await registered(store)} == {file.key for file in put[1::2]}
    assert len(on_disk(root)) == 16  # eight files, with their records
