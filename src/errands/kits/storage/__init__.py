"""Files that outlive the run that made them, and signed links to download them.

    app.use(storage.kit())                    # in the folder ERRANDS_STORAGE_PATH

    @app.task(queue="reports")
    async def export(owner: str, *, files: Storage) -> str:
        file = await files.put(data, content_type="text/csv; charset=utf-8", suffix=".csv")
        return await files.link(file.key, filename="students.csv", expires_in=24 * 3600, owner=owner)

The route that answers those links is `errands.kits.storage.fastapi.files_router`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from errands.kits.storage.errors import (
    InvalidKey,
    LinkError,
    LinkExpired,
    LinkForged,
    StorageError,
    StoredFileNotFound,
)
from errands.kits.storage.folder import FolderStorage
from errands.kits.storage.keys import SUFFIXES, key_for
from errands.kits.storage.links import Link, LinkSigner
from errands.kits.storage.offload import StoragePayloads, payloads
from errands.kits.storage.provider import Storage, StoredFile

if TYPE_CHECKING:
    from errands import Errands, Settings

__all__ = [
    "SUFFIXES",
    "FolderStorage",
    "InvalidKey",
    "Link",
    "LinkError",
    "LinkExpired",
    "LinkForged",
    "LinkSigner",
    "Storage",
    "StorageError",
    "StorageKit",
    "StoragePayloads",
    "StoredFile",
    "StoredFileNotFound",
    "folder_storage",
    "key_for",
    "kit",
    "link_signer",
    "payloads",
]


def link_signer(settings: Settings) -> LinkSigner:
    """The signer of this installation: with the key derived from its secret keys, and its public address."""
    return LinkSigner(settings.link_key(), str(settings.public_url))


def folder_storage(settings: Settings) -> FolderStorage:
    """The storage in the folder that the settings name; the same in the web processes and the workers."""
    return FolderStorage(settings.storage_path or settings.home / "files", link_signer(settings))


class StorageKit:
    """Gives tasks what they ask for as `Storage`."""

    def __init__(self, storage: Storage | None = None) -> None:
        self._storage = storage

    def install(self, app: Errands) -> None:
        """Called by `app.use(...)`."""
        app.provide(Storage, lambda: self._storage or folder_storage(app.settings), scope="process")


def kit(storage: Storage | None = None) -> StorageKit:
    """The kit for `app.use(...)`. Without `storage`, files lie in the folder `settings.storage_path`."""
    return StorageKit(storage)
