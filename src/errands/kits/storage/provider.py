"""What every storage can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
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
    a file `StoredFileNotFound`.
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

    @staticmethod
    def key_for(folder: str, unique: str, suffix: str = "") -> str:
        """The one key for `unique` in `folder`, for work that may be done twice; see `keys.key_for`."""
        return keys.key_for(folder, unique, suffix)
