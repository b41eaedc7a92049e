"""What can be wrong with a stored file, the place it is kept in, or a link to it.

What no repetition can mend is a `Discard`: it ends the run that meets it.
"""

from __future__ import annotations

from errands.core.errors import Discard, ErrandsError


class StorageError(ErrandsError):
    """The root of all errors of the storage kit. A full disk stays an `OSError`: it may pass."""


class InvalidKey(StorageError, ValueError):
    """This key was not made by a storage, or it leads out of the storage's folder."""


class StoredFileNotFound(StorageError, FileNotFoundError):
    """There is no file under this key."""


class StorageUnavailable(StorageError):
    """The storage did not answer, or could not do it just now; it may pass.

    `retry_after`: seconds that it asks to wait, None where it says nothing.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class StorageRefused(StorageError, Discard):
    """The storage will not do it: wrong keys, a missing bucket, a file that it does not take."""


class FileTooLarge(StorageError, Discard):
    """A stream went on beyond the bytes that it may have; nothing of it was kept."""


class QuotaExceeded(StorageError, Discard):
    """The file does not fit into what its owner may keep. `owner`, `used`, `quota`, the latter in bytes."""

    def __init__(self, owner: str, used: int, quota: int, size: int | None) -> None:
        self.owner, self.used, self.quota, self.size = owner, used, quota, size
        what = "the file is larger than what is left" if size is None else f"the file has {size:,}"
        super().__init__(
            f"{owner} uses {used:,} of {quota:,} bytes and {what}: delete files that are no longer needed"
        )


class FileInUse(StorageError):
    """The file can't be deleted: somebody refers to it."""


class LinkError(StorageError):
    """A download link does not hold; see its two kinds."""


class LinkForged(LinkError):
    """The link was not signed by us, or it was changed after signing."""


class LinkExpired(LinkError):
    """The link was good and its time is over."""
