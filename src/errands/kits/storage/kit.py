"""What `app.use` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errands.kits.storage.files import Files, Quota
from errands.kits.storage.provider import Storage
from errands.kits.storage.source import check, storage_from

if TYPE_CHECKING:
    from errands import Errands


class StorageKit:
    """See `kit`."""

    def __init__(self, storage: Storage | None, quota: Quota) -> None:
        self._storage = storage
        self._quota = quota

    def install(self, app: Errands) -> None:
        """Provide `Storage` and `Files`.

        Raises:
            ConfigurationError: ERRANDS_STORAGE_URL or the keys that belong to it make no sense.
        """
        if self._storage is None:
            check(app.settings)

        def files() -> Files:
            made: Storage = app.resources.instance(Storage)  # type: ignore[type-abstract]
            return Files(made, app.database, quota=self._quota)

        app.provide(Storage, lambda: self._storage or storage_from(app.settings), scope="process")
        app.provide(Files, files, scope="process")


def kit(storage: Storage | None = None, *, quota: Quota = None) -> StorageKit:
    """Storage for an app: `app.use(storage.kit())`.

    Args:
        storage: by default what the settings name: see `storage_from`. Tests give `MemoryStorage`.
        quota: bytes that each owner may keep with `Files`; a function tells them by owner, None for no limit.
    """
    return StorageKit(storage, quota)
