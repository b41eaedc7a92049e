"""Documents made by the application: certificates of completion.

    app.use(documents.kit())

    @app.task(queue="certificates")
    async def generate_certificate(enrollment_id: int, *, documents: Documents, files: Storage) -> str:
        pdf = await documents.certificate(Certificate(course=…, student=…, …))

Needs `errands[documents]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errands.kits.documents.provider import Certificate, DocumentError, Documents

if TYPE_CHECKING:
    from errands import Errands
    from errands.kits.documents.typeset import TypstDocuments

__all__ = ["Certificate", "DocumentError", "Documents", "DocumentsKit", "TypstDocuments", "kit"]


class DocumentsKit:
    """Gives tasks what they ask for as `Documents`."""

    def __init__(
        self, documents: Documents | None, template: Path | str | None, fonts: Iterable[Path | str]
    ) -> None:
        self._documents = documents
        self._template = template
        self._fonts = tuple(fonts)

    def install(self, app: Errands) -> None:
        """Called by `app.use(...)`."""
        app.provide(Documents, self._make, scope="process")

    def _make(self) -> Documents:
        from errands.kits.documents.typeset import TypstDocuments

        return self._documents or TypstDocuments(template=self._template, fonts=self._fonts)


def kit(
    documents: Documents | None = None,
    *,
    template: Path | str | None = None,
    fonts: Iterable[Path | str] = (),
) -> DocumentsKit:
    """The kit for `app.use(...)`: `documents`, or else `TypstDocuments(template=…, fonts=…)`."""
    return DocumentsKit(documents, template, fonts)


def __getattr__(name: str) -> Any:
    # Only who sets documents needs the typesetter installed; a test with the fake does not.
    if name == "TypstDocuments":
        from errands.kits.documents.typeset import TypstDocuments

        return TypstDocuments
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
