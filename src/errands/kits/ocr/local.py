"""Documents read on this machine, in child processes with limits."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from errands.children import MIB, ChildCrashed, Children, LimitReached, Limits
from errands.fetching import Fetcher, FetchLimits
from errands.imaging import ImageBounds, ImageRefused
from errands.kits.ocr import installed
from errands.kits.ocr.installed import EngineName
from errands.kits.ocr.provider import Ocr, OcrFailed, OcrRefused, Page, Reading, Word

Fetch = Callable[[str], Awaitable[bytes]]

LIMITS = Limits(memory=768 * MIB, seconds=600, cpu_seconds=300, keep=320 * MIB)
"""For twenty pages; each takes a second, more or less."""

# More threads than one make a page slower, not faster; the processes are what is parallel.
_ENVIRONMENT = {"OMP_THREAD_LIMIT": "1", "OPENBLAS_NUM_THREADS": "1"}
_TYPES = ("application/pdf", "image/*")
_log = logging.getLogger(__name__)


class LocalOcr(Ocr):
    """Reads documents with Tesseract: its library (`tesserocr`), or its command line where it is installed.

    Args:
        engine: "tesserocr" comes from the package index, library and language data; "tesseract" is a program
            of this machine, found on PATH, with the language data that is installed with it.
        languages: of the documents, by Tesseract's codes, joined by +, the most likely first: "eng+deu".
        tessdata: a folder with language data (`deu.traineddata`…) to be used instead.
        bounds: how large an image may be; a PDF has its `max_bytes`.
        max_pages: of a PDF or a TIFF.
        fetch: gets the bytes at an address that a user gave; by default a `Fetcher`, which keeps out of our
            own network.
        limits: of each child process.
        processes: how many there are at the most, and so how many documents at a time; as many as processors
            by default.

    Raises:
        ConfigurationError: the engine, or the data of a language, is not installed.
    """

    def __init__(
        self,
        engine: EngineName = "tesserocr",
        *,
        languages: str = "eng",
        tessdata: Path | None = None,
        bounds: ImageBounds | None = None,
        max_pages: int = 20,
        fetch: Fetch | None = None,
        limits: Limits = LIMITS,
        processes: int | None = None,
    ) -> None:
        self._engine = engine
        self._bounds = bounds or ImageBounds()
        self._settings = {
            **asdict(installed.find(engine, languages, tessdata)),
            "bounds": asdict(self._bounds),
            "max_pages": max_pages,
        }
        self._fetch = fetch or guarded(Fetcher(), self._bounds.max_bytes)
        self._children = Children(
            "ocr",
            replace(limits, programs=engine == "tesseract"),
            size=processes,
            prepare="errands.kits.ocr.work:prepare",
            raises=(OcrRefused, OcrFailed),
            environment=_environment(),
        )

    async def read(self, document: bytes | Path) -> Reading:
        before = time.perf_counter()
        try:
            if isinstance(document, Path):
                document = await asyncio.to_thread(self._bounds.read, document)
            self._bounds.check_size(len(document))
        except ImageRefused as refused:
            raise OcrRefused(str(refused)) from refused
        found = await self._work(document)
        pages = tuple(_page(number, page) for number, page in enumerate(found["pages"], start=1))
        words = [word for page in pages for word in page.words]
        return Reading(
            text="\n\n".join(page.text for page in pages).strip(),
            confidence=_mean(words),
            language=found["language"],
            pages=pages,
            format=found["format"],
            size=len(document),
            engine=self._engine,
            version=found["version"],
            seconds=round(time.perf_counter() - before, 3),
        )

    async def read_url(self, url: str) -> Reading:
        return await self.read(await self._fetch(url))

    async def aclose(self) -> None:
        """End the child processes, in the middle of their work as well."""
        await self._children.aclose()

    async def _work(self, document: bytes) -> Any:
        try:
            return await self._children.acall("errands.kits.ocr.work:read", document, self._settings)
        except (LimitReached, ChildCrashed) as error:
            if error.may_pass:
                raise
            _log.warning("a document was refused: %s", error)
            raise OcrRefused(
                "the document can't be read: it takes more memory or time than it may"
                if isinstance(error, LimitReached)
                else "the document can't be read: it is damaged"
            ) from error


def guarded(fetcher: Fetcher, max_bytes: int) -> Fetch:
    """What `LocalOcr(fetch=…)` takes: `fetcher`, for PDFs and images of up to `max_bytes`."""
    limits = FetchLimits(max_bytes=max_bytes, types=_TYPES)

    async def fetch(url: str) -> bytes:
        return (await fetcher.afetch(url, limits)).data

    return fetch


def _environment() -> dict[str, str]:
    # Where an installed Tesseract may have been told to look for its data.
    told = {name: os.environ[name] for name in ("TESSDATA_PREFIX",) if name in os.environ}
    return _ENVIRONMENT | told


def _page(number: int, page: dict[str, Any]) -> Page:
    words = tuple(Word(text, round(confidence, 1)) for text, confidence in page["words"])
    return Page(
        number=number,
        source=page["source"],
        text=page["text"],
        confidence=_mean(words),
        words=words,
        width=page["width"],
        height=page["height"],
        turned=page["turned"],
    )


def _mean(words: Sequence[Word]) -> float | None:
    return round(sum(word.confidence for word in words) / len(words), 1) if words else None
