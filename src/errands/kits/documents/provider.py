"""What every maker of documents can do."""

from __future__ import annotations

from typing import Protocol, TypeAlias

from errands.kits.documents.certificate import Certificate
from errands.kits.documents.report import Report
from errands.kits.documents.transcript import Transcript

Document: TypeAlias = Certificate | Report | Transcript
"""What can be made."""


class Documents(Protocol):
    """Makes documents. A task asks for it by type (`*, documents: Documents`).

    The same input gives the same bytes, so that work done twice makes the same file. All methods raise
    `DocumentError` (a `Discard`) for what can't be made as asked, and `TypesetterFailed` for what may pass.
    """

    async def certificate(self, certificate: Certificate) -> bytes:
        """The certificate as a PDF of one page."""
        ...

    async def report(self, report: Report) -> bytes:
        """The report as a PDF. Rows that are an iterable, async or not, are read once, to their end."""
        ...

    async def transcript(self, transcript: Transcript) -> bytes:
        """The transcript as a PDF."""
        ...

    async def preview(self, document: bytes | Document, *, width: int = 800, height: int = 1200) -> bytes:
        """A picture (PNG) of the first page of a PDF, or of a document that is made for it.

        `width`, `height`: in pixels, 16 to 4000 each; the picture is as large as fits into both.
        """
        ...
