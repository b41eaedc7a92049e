"""What a folder has to withstand: links in it, a full disk, a killed process."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import (
    FolderStorage,
    InvalidKey,
    LinkSigner,
    StoredFile,
    StoredFileNotFound,
    key_for,
)

SIGNER = LinkSigner(b"k" * 32, "https://school.example")
KEY = key_for("reports", "one", ".txt")


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "deep" / "files", SIGNER)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_files_belong_to_their_user_alone(storage: FolderStorage) -> None:
    await storage.put(b"x", content_type="text/plain", key=KEY)
    for path in storage.root.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


async def test_replacing_and_deleting_leave_nothing_behind(storage: FolderStorage) -> None:
    for data in (b"one", b"two", b"two"):
        await storage.put(data, content_type="text/plain", key=KEY)
    assert len(files_in(storage.root)) == 2
    await storage.delete(KEY)
    assert files_in(storage.root) == []


async def test_a_folder_that_is_a_link_is_not_entered(storage: FolderStorage, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    storage.root.mkdir(parents=True)
    (storage.root / "reports").symlink_to(outside)
    for call in (
        storage.put(b"x", content_type="text/plain", key=KEY),
        storage.read(KEY),
        storage.info(KEY),
        storage.delete(KEY),
    ):
        with pytest.raises(InvalidKey, match="symbolic link"):
            await call
    assert files_in(outside) == []


async def test_a_file_that_is_a_link_is_not_read(storage: FolderStorage, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    await storage.put(b"x", content_type="text/plain", key=KEY)
    for path in files_in(storage.root):
        kept = path.read_bytes()
        path.unlink()
        path.symlink_to(secret)
        with pytest.raises(InvalidKey, match="symbolic link"):
            await storage.read(KEY)
        path.unlink()
        path.write_bytes(kept)
    assert await storage.read(KEY) == b"x"


async def test_a_root_behind_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "files").symlink_to(tmp_path / "volume")
    storage = FolderStorage(tmp_path / "files", SIGNER)
    await storage.put(b"x", content_type="text/plain", key=KEY)
    assert await storage.read(KEY) == b"x"


async def test_lost_bytes_are_told(storage: FolderStorage) -> None:
    await storage.put(b"x", content_type="text/plain", key=KEY)
    next(path for path in files_in(storage.root) if path.suffix == ".txt").unlink()
    with pytest.raises(StoredFileNotFound, match="put it again"):
        await storage.read(KEY)
    await storage.put(b"y", content_type="text/plain", key=KEY)
    assert await storage.read(KEY) == b"y"


async def test_a_write_that_the_disk_refuses_keeps_the_old_file_and_no_half(storage: FolderStorage) -> None:
    await storage.put(b"old", content_type="text/plain", key=KEY)
    before = sorted(files_in(storage.root))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            await storage.put(b"n" * 2_000_000, content_type="text/plain", key=KEY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(files_in(storage.root)) == before
    assert await storage.read(KEY) == b"old"


async def test_a_missing_source_leaves_nothing(storage: FolderStorage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.put(tmp_path / "nothing", content_type="text/plain", key=KEY)
    assert files_in(storage.root) == []


async def test_a_caller_that_is_cancelled_at_the_last_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    entered, go, done = threading.Event(), threading.Event(), threading.Event()

    class Slow(FolderStorage):
        def _keep(self, *args: Any) -> StoredFile:
            entered.set()
            go.wait(30)
            try:
                return super()._keep(*args)
            finally:
                done.set()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"new"

    storage = Slow(tmp_path, SIGNER)
    putting = asyncio.create_task(storage.put_stream(chunks(), content_type="text/plain", key=KEY))
    assert await asyncio.to_thread(entered.wait, 30)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    go.set()
    assert await asyncio.to_thread(done.wait, 30)
    assert await storage.read(KEY) == b"new"


async def test_cleaning_takes_what_killed_writers_left_and_nothing_else(storage: FolderStorage) -> None:
    file = await storage.put(b"x", content_type="text/plain", key=KEY)
    place = (storage.root / KEY).parent
    bytes_of = next(path for path in files_in(storage.root) if path.suffix == ".txt")
    lost = bytes_of.with_name(bytes_of.name.replace(bytes_of.stem[-16:], "0" * 16))
    draft = lost.with_name(lost.name + ".json")
    theirs = place / "README.txt"
    for path in (lost, draft, theirs):
        path.write_bytes(b"?")
    assert await storage.clean(timedelta(hours=1)) == 0
    with clock.use(FakeClock(clock.now() + timedelta(hours=2))):
        assert await storage.clean(timedelta(hours=1)) == 2
        assert await storage.clean(timedelta(hours=1)) == 0
    assert theirs.exists()
    assert await storage.info(KEY) == file
    assert await storage.read(KEY) == b"x"


WRITER = """
import asyncio, sys
from errands.kits.storage import FolderStorage, LinkSigner, key_for

async def main():
    storage = FolderStorage(sys.argv[1], LinkSigner(b"k" * 32, "https://school.example"))
    for round in range(100_000):
        data = bytes([round % 256]) * (1000 + round * 997 % 400_000)
        await storage.put(data, content_type="text/plain", key=key_for("reports", str(round % 5), ".txt"))
        print(round, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [6, 13, 24])
async def test_a_writer_killed_at_any_moment_leaves_whole_files(tmp_path: Path, rounds: int) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as writer:
        assert writer.stdout is not None
        for _ in range(rounds):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    storage = FolderStorage(tmp_path, SIGNER)
    for number in range(5):
        key = key_for("reports", str(number), ".txt")
        file, data = await storage.info(key), await storage.read(key)
        assert len(data) == file.size
        assert len(set(data)) == 1
        await storage.put(b"after", content_type="text/plain", key=key)
        assert await storage.read(key) == b"after"
