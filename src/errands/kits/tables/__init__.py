"""Imports and exports of tables: CSV, XLSX, JSON and JSON lines, of any length, in bounded memory.

    app.use(tables.kit(lambda: app.resources.instance(Storage)))

    CADETS = tables.Import("cadets", CadetRow, key="cadet_id", target=tables.SqlTarget(Cadet, "cadet_id"))

    @app.task(queue="imports")
    async def import_cadets(file: str, user_id: int, *, imports: tables.Imports, run: Run) -> dict[str, Any]:
        return (await imports.run(CADETS, file, by=user_id, run=run)).as_json()

XLSX needs `errands[tables]`.
"""

from errands.kits.tables.chunk import Counts
from errands.kits.tables.declared import Import, Threshold
from errands.kits.tables.errors import (
    ExportRefused,
    FileRefused,
    NotAllowed,
    OvertakenImport,
    SourceChanged,
    TablesError,
)
from errands.kits.tables.exporting import Column, Export, ExportResult, Exports
from errands.kits.tables.fake import FakeFiles, FakeTarget
from errands.kits.tables.files import Files
from errands.kits.tables.importing import Imports
from errands.kits.tables.kit import TablesKit, kit
from errands.kits.tables.limits import Limits
from errands.kits.tables.raw import FileInfo, Reason
from errands.kits.tables.reading import Reading, open_file
from errands.kits.tables.result import ImportResult, Refusal
from errands.kits.tables.sql_target import SqlTarget
from errands.kits.tables.target import Target, Update
from errands.kits.tables.writers import Style, Writer, writer

__all__ = [
    "Column",
    "Counts",
    "Export",
    "ExportRefused",
    "ExportResult",
    "Exports",
    "FakeFiles",
    "FakeTarget",
    "FileInfo",
    "FileRefused",
    "Files",
    "Import",
    "ImportResult",
    "Imports",
    "Limits",
    "NotAllowed",
    "OvertakenImport",
    "Reading",
    "Reason",
    "Refusal",
    "SourceChanged",
    "SqlTarget",
    "Style",
    "TablesError",
    "TablesKit",
    "Target",
    "Threshold",
    "Update",
    "Writer",
    "kit",
    "open_file",
    "writer",
]
