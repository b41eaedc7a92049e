"""What every storage can do."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from errands.kits.storage import keys


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in a storage: its key, its size in bytes, its content type, its SHA-256 in hex."""

    key: str
    size: int
    content_type: str
    sha256: str


class Storage(Protocol):
    """Keeps files that outlive the run that made them.

    A task asks for it by type (`*, storage: Storage`). A key that is no key raises `InvalidKey`, one without
    a file `StoredFileNotFound`. A storage on the network raises `StorageUnavailable` for what may pass and
    `StorageRefused` for what will not; one on a disk an `OSError`.
    """

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> StoredFile:
        """Keep `data` (the bytes, or the path of a local file), whole or not at all.

        Without `key` the file gets a new one that ends in `suffix`. With `key`, which `key_for` made, what
        was there before is replaced in one step: a reader sees the old file or the new one, never parts of
        both; the suffix is then the key's own. When this returns, the file survives a crash of the machine.
        """
        ...

    async def put_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        suffix: str = "",
        key: str | None = None,
        limit: int | None = None,
    ) -> StoredFile:
        """`put` for bytes that come one after the other, an upload or an export, with bounded memory.

        If `chunks` raises, or there are more than `limit` bytes (`FileTooLarge`), nothing is kept, and a file
        that was under `key` before stays as it was.
        """
        ...

    async def info(self, key: str) -> StoredFile:
        """Size, content type and SHA-256 of the file."""
        ...

    async def read(self, key: str) -> bytes:
        """The whole file."""
        ...

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """The file in chunks: `async for chunk in storage.stream(key)`."""
        ...

    async def exists(self, key: str) -> bool:
        """Whether there is a file under `key`."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the file. One that is not there is no error, so that a second run does no harm."""
        ...

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        """An address that downloads the file under the name `filename` for `expires_in` seconds.

        With `owner` the link also says whom it is for. It is made without a look at the file.
        """
        ...

    async def clean(self, older_than: timedelta) -> int:
        """Remove what writers that were killed have left, and nobody wrote to for that long. Tells how many
        pieces; 0 where the storage leaves none, or removes them by itself."""
        return 0

    @staticmethod
    def key_for(folder: str, unique: str, suffix: str = "") -> str:
        """The one key for `unique` in `folder`, for work that may be done twice; see `keys.key_for`."""
        return keys.key_for(folder, unique, suffix)
