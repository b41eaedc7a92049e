"""Documents set by typst: any script, tagged, archivable, in about twenty milliseconds."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time
from functools import cached_property
from pathlib import Path
from typing import cast
from unicodedata import category

import segno
import typst

from errands.core.errors import ConfigurationError
from errands.kits.documents import fonts as font_list
from errands.kits.documents.provider import Certificate, DocumentError, Documents
from errands.kits.documents.text import JOINERS, clean, is_ornament, is_right_to_left, name_of, without

_TEMPLATE = Path(__file__).with_name("certificate.typ")
_TEXTS = ("title", "course", "student", "number", "issuer")
_MISSING = re.compile(r'the text `"(.+?)"` could not be displayed')
_ESCAPE = re.compile(r"\\u\{([0-9a-f]+)\}")
_log = logging.getLogger(__name__)


class TypstDocuments(Documents):
    """Makes certificates as PDF/A-2b (for keeping) and PDF/UA-1 (for screen readers).

    `template`: a typst file of one's own instead of ours; it reads the same data from
    `sys.inputs.certificate` and may use files beside it, and none elsewhere. `fonts`: folders with fonts in
    addition to those that come along; the machine's own are never used.

    A letter that no font has ends in a `DocumentError` that names it: a certificate must not bear a wrong
    name. Symbols outside words (an emoji in a course title) are left out instead, with a line in the log.

    Documents are set one after the other, in a thread of this object, without holding the interpreter.
    """

    def __init__(self, *, template: Path | str | None = None, fonts: Iterable[Path | str] = ()) -> None:
        self._template = Path(template or _TEMPLATE).resolve()
        if not self._template.is_file():
            raise ConfigurationError(f"there is no certificate template {self._template}")
        self._fonts = [*font_list.folders(), *map(Path, fonts)]
        for folder in self._fonts:
            if not folder.is_dir():
                raise ConfigurationError(f"there is no folder with fonts {folder}")
        # A compiler serves one caller at a time.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="documents")

    async def certificate(self, certificate: Certificate) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._certificate, certificate)

    async def aclose(self) -> None:
        """End the thread, after the document at hand."""
        await asyncio.to_thread(self._thread.shutdown)

    def _certificate(self, certificate: Certificate) -> bytes:
        texts = {name: clean(getattr(certificate, name)) for name in _TEXTS}
        for name, text in texts.items():
            if not text and getattr(certificate, name):
                raise DocumentError(f"the {name} of the certificate holds nothing that can be seen")
        # A font may draw its own logo for a private character; nobody knows what the writer meant by it.
        missing = {letter for text in texts.values() for letter in text if category(letter) == "Co"}
        try:
            if not missing:
                return self._set(certificate, texts)
        except _NoGlyph as error:
            missing = error.letters
        return self._set(certificate, _leave_out(missing, texts))

    def _set(self, certificate: Certificate, texts: dict[str, str]) -> bytes:
        midnight = datetime.combine(certificate.completed_on, time(), UTC)
        try:
            pdf, warnings = self._compiler.compile_with_warnings(
                sys_inputs={"certificate": json.dumps(_data(certificate, texts))},
                format="pdf",
                pdf_standards=["a-2b", "ua-1"],
                # The day of completion, not of printing: a second run makes the same bytes.
                timestamp=max(0, int(midnight.timestamp())),
            )
        except typst.TypstError as error:
            letters = _missing_letters(error.diagnostic)
            if letters:
                raise _NoGlyph(letters) from None
            raise DocumentError(
                f"template {self._template.name} makes no PDF/A-2b and PDF/UA-1 document: {error.message}"
            ) from error
        for warning in warnings:
            _log.warning("template %s: %s", self._template.name, warning.message)
        return cast(bytes, pdf)

    @cached_property
    def _compiler(self) -> typst.Compiler:
        fonts = typst.Fonts(
            include_system_fonts=False,
            include_embedded_fonts=False,
            font_paths=[str(folder) for folder in self._fonts],
        )
        return typst.Compiler(
            str(self._template), root=str(self._template.parent), font_paths=fonts, ignore_system_fonts=True
        )


def _data(certificate: Certificate, texts: dict[str, str]) -> dict[str, object]:
    """What the template reads."""
    day = certificate.completed_on
    language, *rest = certificate.language.split("-")
    return {
        **texts,
        "completed_on": {"year": day.year, "month": day.month, "day": day.day},
        "verify_url": certificate.verify_url,
        "qr": _qr(certificate.verify_url),
        "language": language.lower(),
        "region": next((part.upper() for part in rest if len(part) == 2), None),
        "rtl": [name for name, text in texts.items() if is_right_to_left(text)],
        "fonts": font_list.families(" ".join(texts.values()), certificate.language),
    }


class _NoGlyph(Exception):
    """No font has these letters."""

    def __init__(self, letters: set[str]) -> None:
        super().__init__(letters)
        self.letters = letters


def _missing_letters(diagnostic: str) -> set[str]:
    found = "".join(_MISSING.findall(diagnostic))
    letters = set(_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), found))
    # A joiner is told of with its neighbours, and is needed elsewhere in the text.
    return letters - JOINERS or letters


def _leave_out(missing: set[str], texts: dict[str, str]) -> dict[str, str]:
    """`texts` without the missing symbols; raises `DocumentError` for a missing letter."""
    changed = {}
    for name, text in texts.items():
        here = missing.intersection(text)
        lost = sorted(letter for letter in here if not is_ornament(letter))
        changed[name] = without(text, here)
        if lost or (here and not changed[name]):
            raise DocumentError(
                f"no font has {', '.join(map(name_of, lost or sorted(here)))} (in the {name}): "
                "give a folder with a font that has it, as in documents.kit(fonts=[...])"
            )
        if here:
            _log.warning("no font has %s: left out of the %s", ", ".join(map(name_of, sorted(here))), name)
    return changed


def _qr(url: str) -> str:
    return segno.make(url, error="m", micro=False).svg_inline(border=0, dark="#1f2a37", scale=4)
