"""What can be wrong with a stored file or a link to one."""

from __future__ import annotations

from errands.core.errors import ErrandsError


class StorageError(ErrandsError):
    """The root of all errors of the storage kit. A full disk stays an `OSError`: it may pass."""


class InvalidKey(StorageError, ValueError):
    """This key was not made by a storage, or it leads out of the storage's folder."""


class StoredFileNotFound(StorageError, FileNotFoundError):
    """There is no file under this key."""


class LinkError(StorageError):
    """A download link does not hold; see its two kinds."""


class LinkForged(LinkError):
    """The link was not signed by us, or it was changed after signing."""


class LinkExpired(LinkError):
    """The link was good and its time is over."""
