"""Old files of a folder: found, and deleted a few at a time."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import structlog

from errands.core import clock
from errands.kits.upkeep.declaration import Upkeep

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class OldFiles:
    """One walk through an upkeep's folder. No symbolic link is followed: one that is old goes itself.

    Attributes:
        deleted, bytes: files that went, or would go (`dry_run`), and their size.
        failed: files that could not be deleted.
        oldest: when the oldest file that is left was last written to, in seconds since 1970.
        error: why one could not be deleted.
    """

    upkeep: Upkeep
    dry_run: bool
    deleted: int = 0
    bytes: int = 0
    failed: int = 0
    oldest: float | None = None
    error: OSError | None = None
    _walk: Iterator[None] = field(init=False)

    def __post_init__(self) -> None:
        older_than = self.upkeep.older_than or timedelta(0)
        folder = Path(self.upkeep.folder or "").expanduser().absolute()
        self._walk = self._through(folder, clock.timestamp() - older_than.total_seconds())

    def go_on(self) -> bool:
        """Delete up to a chunk of files. False: there are no more."""
        taken = sum(1 for _ in islice(self._walk, self.upkeep.chunk))
        return taken == self.upkeep.chunk

    @property
    def oldest_left(self) -> str | None:
        """`oldest` as ISO text, in UTC."""
        return None if self.oldest is None else datetime.fromtimestamp(self.oldest, UTC).isoformat()

    def _through(self, root: Path, before: float) -> Iterator[None]:
        """Yields after each file that is old."""
        # From the bottom up, so that a folder that becomes empty can go; but one at a time: its own time is
        # that of the last change in it.
        for folder, _, names in os.walk(root, topdown=False):
            place = Path(folder)
            changed = _status(place)
            for name in names:
                if fnmatch.fnmatchcase(name, self.upkeep.pattern) and self._take(place / name, before):
                    yield
            empty = place != root and changed is not None and changed.st_mtime < before
            if empty and not self.dry_run:
                with suppress(OSError):  # it is not empty
                    place.rmdir()

    def _take(self, path: Path, before: float) -> bool:
        found = _status(path)
        if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            return False
        if found.st_mtime >= before:
            self._keep(found)
            return False
        try:
            if not self.dry_run:
                path.unlink(missing_ok=True)
        except OSError as exc:
            _log.warning(
                "an old file cannot be deleted", upkeep=self.upkeep.name, path=str(path), error=str(exc)
            )
            self.failed, self.error = self.failed + 1, exc
            self._keep(found)
        else:
            self.deleted, self.bytes = self.deleted + 1, self.bytes + found.st_size
        return True

    def _keep(self, found: os.stat_result) -> None:
        self.oldest = min(found.st_mtime, self.oldest if self.oldest is not None else found.st_mtime)


def _status(path: Path) -> os.stat_result | None:
    """None: it is gone by now."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
