"""What can go wrong with a document: what no repetition mends, and what may pass."""

from __future__ import annotations

from errands.core.errors import Discard, ErrandsError


class DocumentError(Discard):
    """The document can't be made as asked, and no repetition mends it; the text says what to change."""


class TypesetterFailed(ErrandsError):
    """The typesetter was stopped at its time limit, or ended in the middle of a document.

    It may pass (a machine that was busy or out of memory), so a task's `Retry` applies.
    """
