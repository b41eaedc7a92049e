"""Documents set by typst: any script, tagged, archivable, a certificate in about twenty milliseconds."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, time
from functools import partial
from pathlib import Path
from typing import Any

from errands.core.errors import ConfigurationError
from errands.kits.documents import fonts as font_list
from errands.kits.documents import templates as template_list
from errands.kits.documents.certificate import Certificate
from errands.kits.documents.errors import DocumentError, TypesetterFailed
from errands.kits.documents.gathering import gathered
from errands.kits.documents.provider import Document, Documents
from errands.kits.documents.report import Report
from errands.kits.documents.samples import SAMPLES
from errands.kits.documents.text import JOINERS, Texts, name_of
from errands.kits.documents.transcript import Transcript
from errands.kits.documents.typesetters import Answer, Order, Stop, Typesetters

_MISSING = re.compile(r'the text `"(.+?)"` could not be displayed')
_ESCAPE = re.compile(r"\\u\{([0-9a-f]+)\}")
_PLACE = re.compile(r"┌─ (?:.*/templates/)?(.+?\.typ):(\d+)")
_TRIES = 5
_log = logging.getLogger(__name__)


class TypstDocuments(Documents):
    """Makes documents as PDF/A-2b (for keeping) and PDF/UA-1 (for screen readers).

    `templates`: a folder of typst files; one with the name of one of ours (`certificate.typ`, `report.typ`,
    `transcript.typ`, and what they share: `style.typ`, `words.typ`, `parts.typ`, `charts.typ`) takes its
    place. `fonts`: folders with fonts in addition to those that come along; the machine's own are never used.
    `seconds`: the most that one document may take. `memory`: megabytes that a process which sets documents
    may take. `processes`: how many documents are set at once. `cells`: the most of all tables of a report.

    A letter that no font has ends in a `DocumentError` that names it and where it stands: a certificate must
    not bear a wrong name. Symbols outside words (an emoji in a course title) are left out instead, with a
    line in the log.

    Raises `ConfigurationError` for folders that are not there, and templates that can't be used.
    """

    def __init__(
        self,
        *,
        templates: Path | str | None = None,
        fonts: Iterable[Path | str] = (),
        seconds: float = 120,
        memory: int = 1536,
        processes: int = 1,
        cells: int = 50_000,
    ) -> None:
        if seconds <= 0 or memory < 256 or processes < 1 or cells < 1:
            raise ConfigurationError(
                f"documents: seconds={seconds:g}, memory={memory} (MB), processes={processes}, "
                f"cells={cells}: all must be above zero, and memory at least 256"
            )
        folders = [*font_list.folders(), *map(Path, fonts)]
        for folder in folders:
            if not folder.is_dir():
                raise ConfigurationError(f"there is no folder with fonts {folder}")
        self._home = tempfile.TemporaryDirectory(prefix="errands-documents-", ignore_cleanup_errors=True)
        home = Path(self._home.name)
        self._root = home / "templates"
        template_list.lay(self._root, Path(templates) if templates is not None else None)
        if more := font_list.link_more(home / "fonts"):
            folders.append(more)
        self._cells = cells
        self._typesetters = Typesetters(self._root, folders, seconds=seconds, memory=memory * 1_000_000)
        self._threads = ThreadPoolExecutor(max_workers=processes, thread_name_prefix="documents")

    async def certificate(self, certificate: Certificate) -> bytes:
        return await self._in_thread(self._made, certificate)

    async def report(self, report: Report) -> bytes:
        return await self._in_thread(self._made, await gathered(report, self._cells))

    async def transcript(self, transcript: Transcript) -> bytes:
        return await self._in_thread(self._made, transcript)

    async def preview(self, document: bytes | Document, *, width: int = 800, height: int = 1200) -> bytes:
        if not 16 <= width <= 4000 or not 16 <= height <= 4000:
            raise DocumentError(f"a preview of {width} x {height} pixels: 16 to 4000 each are possible")
        if isinstance(document, Report):
            document = await gathered(document, self._cells)
        pdf = document if isinstance(document, bytes) else await self._in_thread(self._made, document)
        if not pdf.startswith(b"%PDF-"):
            raise DocumentError("a preview needs a PDF, and this is none")
        return await self._in_thread(self._pictured, pdf, width, height)

    def check(self) -> None:
        """Set a sample of each document; raises `ConfigurationError` naming the template that can't be."""
        for sample in SAMPLES:
            try:
                self._made(sample, Stop())
            except (DocumentError, TypesetterFailed) as error:
                raise ConfigurationError(str(error)) from error

    async def aclose(self) -> None:
        """End the processes, after the documents at hand."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the processes, after the documents at hand."""
        self._threads.shutdown()
        self._typesetters.close()
        self._home.cleanup()

    async def _in_thread(self, function: Callable[..., bytes], *args: Any) -> bytes:
        stop = Stop()
        future = asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *args, stop))
        try:
            return await future
        except BaseException:
            # Cancelled, or a time limit of the task: nobody waits for it any more.
            stop.now()
            future.cancel()
            raise

    def _made(self, document: Document, stop: Stop) -> bytes:
        missing: frozenset[str] = frozenset()
        for _ in range(_TRIES):
            texts = Texts(document.language, missing)
            data = document.data(texts)
            with self._files({picture.name: picture.content for picture in document.pictures()}) as folder:
                data |= _common(document.language, texts, folder)
                order = Order(document.template, json.dumps(data, ensure_ascii=False), _options(document))
                answer = self._typesetters.set(order, stop)
            found = _missing_letters(answer.diagnostic)
            if not found - missing:
                break
            # Typst says so at the end, and not always of all.
            missing |= found
        if answer.error:
            raise DocumentError(_explained(document, answer))
        for letter, where in sorted(texts.left_out):
            _log.warning("no font has %s: left out of the %s", name_of(letter), where)
        for warning in answer.warnings:
            _log.warning("template %s: %s", document.template, warning)
        return answer.made

    def _pictured(self, pdf: bytes, width: int, height: int, stop: Stop) -> bytes:
        with self._files({"first.pdf": pdf}) as folder:
            data = json.dumps({"file": f"{folder}first.pdf", "width": width, "height": height})
            answer = self._typesetters.set(Order("preview.typ", data, {"format": "png", "ppi": 72}), stop)
        if answer.error:
            raise DocumentError(f"this PDF has no first page that can be shown: {answer.error}")
        return answer.made

    @contextmanager
    def _files(self, files: dict[str, bytes]) -> Iterator[str]:
        """Files for one document, in a folder of their own that templates see under the name given back."""
        if not files:
            yield ""
            return
        name = secrets.token_hex(8)
        folder = self._root / "files" / name
        folder.mkdir(parents=True)
        try:
            for file, data in files.items():
                (folder / file).write_bytes(data)
            yield f"/files/{name}/"
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _common(language: str, texts: Texts, folder: str) -> dict[str, Any]:
    """What all templates read."""
    tag, *rest = language.split("-")
    return {
        "language": tag.lower(),
        "region": next((part.upper() for part in rest if len(part) == 2), None),
        "fonts": font_list.families(" ".join(texts.foreign), language),
        "rtl": texts.right_to_left,
        "files": folder,
    }


def _options(document: Document) -> dict[str, Any]:
    """Typst's options. The day is the document's, not of printing: a second run makes the same bytes."""
    day = document.day
    midnight = int(datetime.combine(day, time(), UTC).timestamp()) if day else 0
    return {
        "format": "pdf",
        # Only with PDF/A is a missing letter an error.
        "pdf_standards": ["a-2b", "ua-1"] if document.tagged else ["a-2b"],
        "pdf_tags": document.tagged,
        "timestamp": max(0, midnight),
    }


def _explained(document: Document, answer: Answer) -> str:
    place = _PLACE.search(answer.diagnostic)
    where = f"{place[1]}, line {place[2]}" if place else document.template
    if letters := _missing_letters(answer.diagnostic):
        return f"no font has {', '.join(map(name_of, sorted(letters)))}, and template {where}, shows it"
    if "decode image" in answer.error:
        return f"a picture of the document can't be read: {answer.error}"
    return f"template {where}: {answer.error}"


def _missing_letters(diagnostic: str) -> frozenset[str]:
    found = "".join(_MISSING.findall(diagnostic))
    letters = frozenset(_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), found))
    # A joiner is told of with its neighbours, and is needed elsewhere in the text.
    return letters - JOINERS or letters
