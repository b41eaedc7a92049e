"""The seam to where files are kept."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from errands import ConfigurationError
from errands.kits.tables.cells import shortened
from errands.kits.tables.errors import FileRefused
from errands.kits.tables.threads import aside


class Files(Protocol):
    """Keeps files that people give and get. The storage kit's `Storage` is one as it is:
    `tables.kit(files=lambda: app.resources.instance(Storage))`."""

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> Any:
        """Keep the file, whole or not at all. Answers something whose `key` is the file's key."""
        ...

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """The file in pieces.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        ...

    async def link(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        """An address that downloads the file under that name for `expires_in` seconds."""
        ...

    def key_for(self, folder: str, unique: str, suffix: str = "") -> str:
        """The one key for `unique`, so that what is made twice is one file."""
        ...


def needed(files: Files | None, what: str) -> Files:
    """`files`, where they are needed.

    Raises:
        ConfigurationError: the kit was given none.
    """
    if files is None:
        raise ConfigurationError(f"{what} needs a place for files: tables.kit(files=lambda: …)")
    return files


async def fetch(files: Files, key: str, path: Path, most: int) -> str:
    """Copy a stored file to `path`; answers its SHA-256 in hex.

    Raises:
        FileRefused: it has more than `most` bytes, or there is none.
    """
    digest, size = hashlib.sha256(), 0
    with await aside(path.open, "wb") as file:
        try:
            async for piece in files.stream(key):
                size += len(piece)
                if size > most:
                    raise FileRefused(f"the file has more than {most:,} bytes, which is the limit")
                digest.update(piece)
                await aside(file.write, piece)
        except FileNotFoundError as error:
            raise FileRefused(f"there is no stored file {shortened(key)}") from error
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a local file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
