"""What every maker of documents can do, and what a certificate says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from errands.core.errors import Discard

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")
_MOST = {"course": 300, "student": 300, "title": 200, "issuer": 100, "number": 40, "verify_url": 300}
"""The most characters of each text; so many fit on the page even where all are wide."""


class DocumentError(Discard):
    """The document can't be made as asked, and no repetition mends it; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What stands on a certificate of completion.

    `course` and `student` (up to 300 characters each), `title` (200) and `issuer` (100, may be empty): any
    text in any script. `completed_on`: the day of completion, not of printing. `number` (40): the
    certificate's own. `verify_url` (300): the public page, http or https, where anybody can check it;
    printed, and as a QR code. `language`: that of the template's own words, as a BCP 47 tag; it also
    decides between the Chinese, Japanese and Korean shapes of a character.

    Raises `DocumentError` for values from which no certificate can be made.
    """

    course: str
    student: str
    completed_on: date
    number: str
    verify_url: str
    title: str = "Certificate of Completion"
    issuer: str = ""
    language: str = "en"

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            text = getattr(self, name)
            if not text.strip() and name != "issuer":
                raise DocumentError(f"a certificate needs a {name}, and it is empty")
            if len(text) > most:
                raise DocumentError(
                    f"the {name} of the certificate has {len(text)} characters; {most} are the most"
                )
        if not re.fullmatch(r"https?://[^\s/]+[^\s]*", self.verify_url):
            raise DocumentError(f"verify_url {self.verify_url!r} is no http or https address")
        if not _LANGUAGE.fullmatch(self.language):
            raise DocumentError(f"language {self.language!r} is no language tag: write it like en or zh-Hant")
        if isinstance(self.completed_on, datetime):
            object.__setattr__(self, "completed_on", self.completed_on.date())


class Documents(Protocol):
    """Makes documents. A task asks for it by type (`*, documents: Documents`)."""

    async def certificate(self, certificate: Certificate) -> bytes:
        """The certificate as a PDF of one page; the same input gives the same bytes.

        Raises `DocumentError` (a `Discard`) when it can't be made as asked.
        """
        ...
