"""What can go wrong with an import or an export as a whole; what is wrong with a row is a `Reason`."""

from __future__ import annotations

from errands import Discard, ErrandsError


class TablesError(ErrandsError):
    """The root of the tables kit's errors."""


class FileRefused(TablesError, Discard, ValueError):
    """The file can't be imported at all: it is no table, it is over a limit, its columns are others. Nothing
    was written. The text says what to change in the file."""


class NotAllowed(TablesError, Discard, PermissionError):
    """The person who asks may not do this import or export."""


class SourceChanged(TablesError, Discard):
    """An import that was cut off can't go on: the file is not the one that it began with."""


class OvertakenImport(TablesError, Discard):
    """Another attempt at the same import has gone on meanwhile. This one has written nothing twice."""


class ExportRefused(TablesError, Discard, ValueError):
    """The rows do not fit the format: too many of them for XLSX, or a text that is too long for its cells."""
