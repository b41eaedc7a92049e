"""Files in a folder of the machine, or on a volume that several machines share."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from errands.core import clock
from errands.kits.storage.blocks import BLOCK, blocks
from errands.kits.storage.disk import NewFile, open_plain, sync_folder
from errands.kits.storage.errors import InvalidKey, StoredFileNotFound
from errands.kits.storage.keys import check_content_type, check_key, new_key
from errands.kits.storage.links import LinkSigner
from errands.kits.storage.provider import Storage, StoredFile

# `<key>-<16 hex digits><suffix>` holds bytes, and the same with `.json` is a record not in its place yet.
_BYTES = re.compile(r"([0-9a-f]{32,64})-[0-9a-f]{16}((?:\.[a-z0-9]{1,8})?)")
_DRAFT = re.compile(_BYTES.pattern + r"\.json")


@dataclass(frozen=True, slots=True)
class _Record:
    """What `<key>.json` holds: the file's properties, and the name of the file beside it with the bytes."""

    content: str
    size: int
    content_type: str
    sha256: str


class FolderStorage(Storage):
    """Keeps files in `root` (made when it is missing), readable by its own user alone.

    A stored file is two files: the bytes, under a name used once, and beside them `<key>.json` with their
    content type and checksum. Renaming the latter into place is the one moment at which the file appears or
    changes, bytes and properties together. A crash before it leaves at worst bytes that nothing points to.

    No symbolic link inside `root` is followed. All file work is done in threads. Errors of the disk (full,
    not writable) come as `OSError`.
    """

    def __init__(self, root: Path | str, signer: LinkSigner) -> None:
        self.root = Path(root).resolve()
        self.signer = signer

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> StoredFile:
        key = new_key(suffix) if key is None else check_key(key)
        return await asyncio.to_thread(self._put, key, data, check_content_type(content_type))

    async def put_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        suffix: str = "",
        key: str | None = None,
        limit: int | None = None,
    ) -> StoredFile:
        key = new_key(suffix) if key is None else check_key(key)
        check_content_type(content_type)
        file = await asyncio.to_thread(self._new_file, key)
        try:
            async for block in blocks(chunks, limit):
                await asyncio.to_thread(file.write, block)
        except BaseException:
            file.abandon()
            raise
        # Not in the block above: a caller that is cancelled here must not take the bytes from their record.
        return await asyncio.to_thread(self._keep, key, file, content_type)

    async def info(self, key: str) -> StoredFile:
        record = await asyncio.to_thread(self._record, check_key(key))
        return StoredFile(key, record.size, record.content_type, record.sha256)

    async def read(self, key: str) -> bytes:
        def read() -> bytes:
            with self._open(check_key(key)) as file:
                return file.read()

        return await asyncio.to_thread(read)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._open, check_key(key))
        try:
            while chunk := await asyncio.to_thread(file.read, BLOCK):
                yield chunk
        finally:
            file.close()

    async def exists(self, key: str) -> bool:
        try:
            await self.info(key)
        except StoredFileNotFound:
            return False
        return True

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, check_key(key))

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        return self.signer.sign(key, filename=filename, expires_in=expires_in, owner=owner)

    async def clean(self, older_than: timedelta) -> int:
        return await asyncio.to_thread(self._clean, clock.timestamp() - older_than.total_seconds())

    def _put(self, key: str, data: bytes | Path, content_type: str) -> StoredFile:
        file = self._new_file(key)
        try:
            for chunk in _chunks(data):
                file.write(chunk)
        except BaseException:
            file.abandon()
            raise
        return self._keep(key, file, content_type)

    def _new_file(self, key: str) -> NewFile:
        place = self.root / key
        self._make_folder(place.parent)
        return NewFile(place.with_name(f"{place.stem}-{secrets.token_hex(8)}{place.suffix}"))

    def _keep(self, key: str, file: NewFile, content_type: str) -> StoredFile:
        """Let `file` be what is under `key`, or leave nothing of it."""
        place = self.root / key
        draft = file.path.with_name(file.path.name + ".json")
        try:
            file.close()
            try:
                before = self._record(key).content
            except StoredFileNotFound:
                before = None
            record = _Record(file.path.name, file.size, content_type, file.sha256)
            _write(draft, json.dumps(asdict(record)).encode())
            self._check_folder(place.parent)
            draft.rename(_record_path(place))
        except BaseException:
            draft.unlink(missing_ok=True)
            file.abandon()
            raise
        sync_folder(place.parent)
        if before:
            (place.parent / before).unlink(missing_ok=True)
        return StoredFile(key, file.size, content_type, file.sha256)

    def _delete(self, key: str) -> None:
        place = self.root / key
        try:
            record = self._record(key)
        except StoredFileNotFound:
            return
        _record_path(place).unlink(missing_ok=True)
        sync_folder(place.parent)
        (place.parent / record.content).unlink(missing_ok=True)

    def _record(self, key: str) -> _Record:
        place = self.root / key
        self._check_folder(place.parent)
        try:
            with open_plain(_record_path(place)) as file:
                return _Record(**json.load(file))
        except (FileNotFoundError, NotADirectoryError):
            raise StoredFileNotFound(f"there is no stored file {key}") from None

    def _open(self, key: str) -> BinaryIO:
        # A put of the same key may remove the bytes between the two steps; its own are then there.
        for _ in range(5):
            record = self._record(key)
            with suppress(FileNotFoundError):
                file = open_plain((self.root / key).with_name(record.content))
                try:
                    self._check_folder((self.root / key).parent)
                except InvalidKey:
                    file.close()
                    raise
                return file
        raise StoredFileNotFound(f"the bytes of the stored file {key} are gone; put it again")

    def _clean(self, before: float) -> int:
        removed = 0
        for folder, _, names in os.walk(self.root):
            place = Path(folder)
            for name in names:
                if self._is_left(place, name) and _changed_at(place / name) < before:
                    (place / name).unlink(missing_ok=True)
                    removed += 1
        return removed

    def _is_left(self, folder: Path, name: str) -> bool:
        if _DRAFT.fullmatch(name):
            return True
        found = _BYTES.fullmatch(name)
        if not found:
            return False
        key = (folder / (found[1] + found[2])).relative_to(self.root).as_posix()
        try:
            return self._record(key).content != name
        except StoredFileNotFound:
            return True

    def _make_folder(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        self._check_folder(folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in missing:
            sync_folder(path.parent)
        self._check_folder(folder)

    def _check_folder(self, folder: Path) -> None:
        if folder.resolve() != folder:
            raise InvalidKey(f"{folder.relative_to(self.root)} is or crosses a symbolic link: remove it")


def _record_path(place: Path) -> Path:
    return place.with_name(place.name + ".json")


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, Path):
        with data.open("rb") as file:
            while chunk := file.read(BLOCK):
                yield chunk
    else:
        yield data


def _write(path: Path, data: bytes) -> None:
    file = NewFile(path)
    try:
        file.write(data)
        file.close()
    except BaseException:
        file.abandon()
        raise


def _changed_at(path: Path) -> float:
    """When the file was last written to; as if it were now, if it is gone."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return float("inf")
