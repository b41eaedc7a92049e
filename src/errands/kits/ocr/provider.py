"""What every reader of documents can do, and what it finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from errands import Discard, ErrandsError


class OcrRefused(Discard):
    """This document can't be read: no PDF and no image, damaged, locked, or larger than it may be.

    No repetition mends it. The text says what is wrong, and may be shown to whoever sent the document.
    """


class OcrFailed(ErrandsError):
    """The engine gave up on a page that should be legible; the text is its own."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, and how sure the engine is of it: 0 to 100."""

    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document.

    `number`: from 1. `source`: "text" where the document says itself what is written there (a PDF with a text
    layer), "ocr" where it was read from an image. `confidence`: the mean of its words', 0 to 100; None for
    "text" and for pages without words. `words`: empty for "text". `width`, `height`: pixels of the image that
    was read; points (1/72 inch) for "text". `turned`: degrees, against the clock, by which it was turned
    before it could be read.
    """

    number: int
    source: Literal["text", "ocr"]
    text: str
    confidence: float | None
    words: tuple[Word, ...]
    width: int
    height: int
    turned: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in a document.

    `text`: that of all pages, with an empty line between them. `confidence`: the mean of all words that were
    read from images, 0 to 100; None where there are none. `language`: what the text is written in, by its ISO
    639-1 code, or None for too little text to tell. `format`: "pdf", "jpeg", "png"…, by the content. `size`:
    bytes of the document. `engine`, `version`: what read it. `seconds`: how long that took.
    """

    text: str
    confidence: float | None
    language: str | None
    pages: tuple[Page, ...]
    format: str
    size: int
    engine: str
    version: str
    seconds: float

    def metadata(self) -> dict[str, Any]:
        """All but the text and the words, as JSON has it: to be kept beside the text."""
        whole = asdict(self)
        del whole["text"]
        for page in whole["pages"]:
            page["words"] = len(page["words"])
            del page["text"]
        return whole | {"pages": list(whole["pages"])}


class Ocr(Protocol):
    """Reads what is written in images and PDFs. A task asks for it by type (`*, ocr: Ocr`)."""

    async def read(self, document: bytes | Path) -> Reading:
        """What is written in `document`, a PDF or an image (its bytes, or the path of a local file).

        Raises:
            OcrRefused: it can't be read, and no repetition mends that.
            OcrFailed: the engine gave up.
            ChildError: it was not done for a reason that may pass.
        """
        ...

    async def read_url(self, url: str) -> Reading:
        """The same for the document at `url`, which a user gave.

        Raises:
            FetchRefused: `url` must not be fetched, leads nowhere, or to something else.
            FetchFailed: another attempt may succeed.
        """
        ...
