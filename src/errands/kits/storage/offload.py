"""Large arguments of tasks in a storage: `app.offload_to(storage.payloads(folder_storage(settings)))`."""

from __future__ import annotations

from errands.kits.storage.errors import StoredFileNotFound
from errands.kits.storage.keys import key_for
from errands.kits.storage.provider import Storage

_FOLDER = "payloads"


class StoragePayloads:
    """Keeps payloads as files of a storage. See `errands.PayloadStore`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def put(self, key: str, content: bytes) -> None:
        """Keep `content`."""
        await self._storage.put(content, content_type="application/json", key=_file(key))

    async def get(self, key: str) -> bytes | None:
        """What is kept under `key`; None where there is nothing."""
        try:
            return await self._storage.read(_file(key))
        except StoredFileNotFound:
            return None

    async def delete(self, key: str) -> None:
        """Remove it; one that is not there is no error."""
        await self._storage.delete(_file(key))


def payloads(storage: Storage) -> StoragePayloads:
    """What `app.offload_to(...)` takes. Every process of the app must see the same files."""
    return StoragePayloads(storage)


def _file(key: str) -> str:
    return key_for(_FOLDER, key, ".json")
