"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from errands import Database
from errands.kits.tables.exporting import Exports
from errands.kits.tables.files import Files
from errands.kits.tables.importing import Imports

if TYPE_CHECKING:
    from errands import Errands


class TablesKit:
    """See `kit`."""

    def __init__(self, files: Callable[[], Files] | None, database: Database | None) -> None:
        self._files = files
        self._database = database

    def install(self, app: Errands) -> None:
        """Provide `Imports` and `Exports`."""

        def files() -> Files | None:
            return self._files() if self._files is not None else None

        app.provide(Imports, lambda: Imports(self._database or app.database, files()), scope="process")
        app.provide(Exports, lambda: Exports(self._database or app.database, files()), scope="process")


def kit(files: Callable[[], Files] | None = None, *, database: Database | None = None) -> TablesKit:
    """Imports and exports for an app: `app.use(tables.kit(lambda: app.resources.instance(Storage)))`.

    Args:
        files: makes what keeps files, once a process; a storage of the storage kit is one as it is. Without
            it, imports take rows and local files and keep no file of refused rows, and there are no exports.
        database: where the tables are that are imported into and exported from; by default the app's. Another
            one needs Errands' own tables too (`database.upgrade()`), since an import notes how far it came in
            the transaction that writes.
    """
    return TablesKit(files, database)
