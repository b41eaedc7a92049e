"""Files that outlive the run that made them, and signed links to download them.

    app.use(storage.kit())                    # a folder, or ERRANDS_STORAGE_URL=s3://bucket/prefix

    @app.task(queue="reports")
    async def export(owner: str, *, files: Storage) -> str:
        file = await files.put(data, content_type="text/csv; charset=utf-8", suffix=".csv")
        return await files.link(file.key, filename="students.csv", expires_in=24 * 3600, owner=owner)

The route that answers links is `errands.kits.storage.fastapi.files_router`. `Files` knows who refers to which
file, holds owners to a quota, and removes what nobody needs.
"""

from __future__ import annotations

from errands.kits.storage.errors import (
    FileInUse,
    FileTooLarge,
    InvalidKey,
    LinkError,
    LinkExpired,
    LinkForged,
    QuotaExceeded,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    StoredFileNotFound,
)
from errands.kits.storage.files import Files, Swept
from errands.kits.storage.folder import FolderStorage
from errands.kits.storage.keys import SUFFIXES, key_for
from errands.kits.storage.kit import StorageKit, kit
from errands.kits.storage.links import Link, LinkSigner
from errands.kits.storage.offload import StoragePayloads, payloads
from errands.kits.storage.provider import Storage, StoredFile
from errands.kits.storage.s3 import S3Storage
from errands.kits.storage.source import cloudinary_from, folder_storage, link_signer, storage_from

__all__ = [
    "SUFFIXES",
    "FileInUse",
    "FileTooLarge",
    "Files",
    "FolderStorage",
    "InvalidKey",
    "Link",
    "LinkError",
    "LinkExpired",
    "LinkForged",
    "LinkSigner",
    "QuotaExceeded",
    "S3Storage",
    "Storage",
    "StorageError",
    "StorageKit",
    "StoragePayloads",
    "StorageRefused",
    "StorageUnavailable",
    "StoredFile",
    "StoredFileNotFound",
    "Swept",
    "cloudinary_from",
    "folder_storage",
    "key_for",
    "kit",
    "link_signer",
    "payloads",
    "storage_from",
]
