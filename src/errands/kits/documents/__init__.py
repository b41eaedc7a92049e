"""Documents made by the application: certificates, transcripts, reports with tables and charts.

    app.use(documents.kit())

    @app.task(queue="reports")
    async def grades_report(class_id: int, *, documents: Documents, files: Storage) -> str:
        pdf = await documents.report(Report(title="Grades", sections=[Table(["Student", "Mark"], rows)]))

Needs `errands[documents]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from errands.kits.documents.certificate import Certificate
from errands.kits.documents.chart import Chart
from errands.kits.documents.errors import DocumentError, TypesetterFailed
from errands.kits.documents.kit import DocumentsKit, kit
from errands.kits.documents.picture import Picture
from errands.kits.documents.provider import Document, Documents
from errands.kits.documents.report import Facts, Heading, PageBreak, Report, Section, Text
from errands.kits.documents.table import Column, Table
from errands.kits.documents.transcript import Mark, Term, Transcript

if TYPE_CHECKING:
    from errands.kits.documents.typeset import TypstDocuments

__all__ = [
    "Certificate",
    "Chart",
    "Column",
    "Document",
    "DocumentError",
    "Documents",
    "DocumentsKit",
    "Facts",
    "Heading",
    "Mark",
    "PageBreak",
    "Picture",
    "Report",
    "Section",
    "Table",
    "Term",
    "Text",
    "Transcript",
    "TypesetterFailed",
    "TypstDocuments",
    "kit",
]


def __getattr__(name: str) -> Any:
    # Only who sets documents needs the typesetter installed; a test with the fake does not.
    if name == "TypstDocuments":
        from errands.kits.documents.typeset import TypstDocuments

        return TypstDocuments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
