"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errands.kits.documents.provider import Documents

if TYPE_CHECKING:
    from errands import Errands


class DocumentsKit:
    """Gives tasks what they ask for as `Documents`; see `kit`."""

    def __init__(self, documents: Documents | None, options: dict[str, Any]) -> None:
        self._documents = documents
        self._options = options

    def install(self, app: Errands) -> None:
        """Called by `app.use(...)`.

        Raises:
            ConfigurationError: a template of the app's own can't be used; it names the file and the line.
        """
        app.provide(Documents, self._make, scope="process")
        if self._documents is None and self._options["templates"] is not None:
            from errands.kits.documents.typeset import TypstDocuments

            tried = TypstDocuments(**self._options)
            try:
                tried.check()
            finally:
                tried.close()

    def _make(self) -> Documents:
        from errands.kits.documents.typeset import TypstDocuments

        return self._documents or TypstDocuments(**self._options)


def kit(
    documents: Documents | None = None,
    *,
    templates: Path | str | None = None,
    fonts: Iterable[Path | str] = (),
    seconds: float = 120,
    memory: int = 1536,
    processes: int = 1,
    cells: int = 50_000,
) -> DocumentsKit:
    """Documents for an app: `app.use(documents.kit())`.

    Args:
        documents: what makes them; by default `TypstDocuments` with the rest, once a process. Tests give
            `FakeDocuments()`.
        templates: a folder of typst files that take the place of ours by their names. They are tried when
            the kit is used, so that a broken one stops the start and not a document.
        fonts: folders with more fonts.
        seconds: the most that one document may take.
        memory: megabytes that a process which sets documents may take.
        processes: how many documents are set at once, in each process of the app.
        cells: the most that the tables of one report may have together.
    """
    options = {
        "templates": templates, "fonts": tuple(fonts), "seconds": seconds, "memory": memory,
        "processes": processes, "cells": cells,
    }  # fmt: skip
    return DocumentsKit(documents, options)
