"""How a file comes onto a disk whole, and is read without following a link."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from errands.kits.storage.errors import InvalidKey


class NewFile:
    """A file that must not be there yet: written piece by piece, then brought down to the disk.

    Raises:
        FileExistsError: it is there; it is not touched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Write one more piece."""
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> None:
        """Survive a crash of the machine from now on; the name does after `sync_folder`."""
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())

    def abandon(self) -> None:
        """Leave no file."""
        self.path.unlink(missing_ok=True)
        self._file.close()


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read it.

    Raises:
        InvalidKey: it is a symbolic link.
    """
    try:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb")
    except OSError as error:
        if path.is_symlink():
            raise InvalidKey(f"{path.name} is a symbolic link; a storage follows none") from error
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a crash of the machine, as fsync does for bytes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
