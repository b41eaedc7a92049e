"""Files in a folder of the machine, or on a volume that several machines share."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from errands.kits.storage.errors import InvalidKey, StoredFileNotFound
from errands.kits.storage.keys import check_content_type, check_key, new_key
from errands.kits.storage.links import LinkSigner
from errands.kits.storage.provider import Storage, StoredFile

_CHUNK = 256 * 1024


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
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
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

    def _put(self, key: str, data: bytes | Path, content_type: str) -> StoredFile:
        place = self.root / key
        self._make_folder(place.parent)
        try:
            before = self._record(key).content
        except StoredFileNotFound:
            before = None
        content = place.with_name(f"{place.stem}-{secrets.token_hex(8)}{place.suffix}")
        size, sha256 = _write_new(content, _chunks(data))
        record = _Record(content.name, size, content_type, sha256)
        draft = content.with_name(content.name + ".json")
        try:
            _write_new(draft, [json.dumps(asdict(record)).encode()])
            self._check_folder(place.parent)
            draft.rename(_record_path(place))
        except BaseException:
            draft.unlink(missing_ok=True)
            content.unlink(missing_ok=True)
            raise
        _sync_folder(place.parent)
        if before:
            (place.parent / before).unlink(missing_ok=True)
        return StoredFile(key, size, content_type, sha256)

    def _delete(self, key: str) -> None:
        place = self.root / key
        try:
            record = self._record(key)
        except StoredFileNotFound:
            return
        _record_path(place).unlink(missing_ok=True)
        _sync_folder(place.parent)
        (place.parent / record.content).unlink(missing_ok=True)

    def _record(self, key: str) -> _Record:
        place = self.root / key
        self._check_folder(place.parent)
        try:
            with _open_plain(_record_path(place)) as file:
                return _Record(**json.load(file))
        except (FileNotFoundError, NotADirectoryError):
            raise StoredFileNotFound(f"there is no stored file {key}") from None

    def _open(self, key: str) -> BinaryIO:
        # A put of the same key may remove the bytes between the two steps; its own are then there.
        for _ in range(5):
            record = self._record(key)
            with suppress(FileNotFoundError):
                file = _open_plain((self.root / key).with_name(record.content))
                try:
                    self._check_folder((self.root / key).parent)
                except InvalidKey:
                    file.close()
                    raise
                return file
        raise StoredFileNotFound(f"the bytes of the stored file {key} are gone; put it again")

    def _make_folder(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        self._check_folder(folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in missing:
            _sync_folder(path.parent)
        self._check_folder(folder)

    def _check_folder(self, folder: Path) -> None:
        if folder.resolve() != folder:
            raise InvalidKey(f"{folder.relative_to(self.root)} is or crosses a symbolic link: remove it")


def _record_path(place: Path) -> Path:
    return place.with_name(place.name + ".json")


def _chunks(data: bytes | Path) -> Iterator[bytes]:
    if isinstance(data, Path):
        with data.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    else:
        yield data


def _write_new(path: Path, chunks: Iterator[bytes] | list[bytes]) -> tuple[int, str]:
    """Write a file that must not be there yet, down to the disk, or leave none. Returns size and SHA-256."""
    size, digest = 0, hashlib.sha256()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return size, digest.hexdigest()


def _open_plain(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError as error:
        if path.is_symlink():
            raise InvalidKey(f"{path.name} is a symbolic link; a storage follows none") from error
        raise


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a crash of the machine, as fsync does for bytes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
