"""OCR for tests: nothing is read, and no process is started."""

from __future__ import annotations

import asyncio
from pathlib import Path

from errands.kits.ocr.provider import Ocr, OcrRefused, Page, Reading, Word


class FakeOcr(Ocr):
    """Finds in a document what `texts` has for its bytes or its address, else `text`.

    `calls`: what it was asked to read, bytes and addresses, in their order. `refuse`: those it refuses.
    """

    def __init__(
        self,
        text: str = "Dear Sir or Madam",
        *,
        texts: dict[bytes | str, str] | None = None,
        refuse: tuple[bytes | str, ...] = (),
        confidence: float = 95.0,
    ) -> None:
        self.calls: list[bytes | str] = []
        self._text = text
        self._texts = texts or {}
        self._refuse = refuse
        self._confidence = confidence

    async def read(self, document: bytes | Path) -> Reading:
        data = await asyncio.to_thread(document.read_bytes) if isinstance(document, Path) else bytes(document)
        return self._found(data, len(data))

    async def read_url(self, url: str) -> Reading:
        return self._found(url, 1000)

    def _found(self, what: bytes | str, size: int) -> Reading:
        self.calls.append(what)
        if not what or what in self._refuse:
            raise OcrRefused("the document is no PDF and no image")
        text = self._texts.get(what, self._text)
        words = tuple(Word(word, self._confidence) for word in text.split())
        confidence = self._confidence if words else None
        page = Page(1, "ocr", text, confidence, words, 1654, 2339)
        return Reading(text, confidence, "en", (page,), "png", size, "fake", "1", 0.0)
