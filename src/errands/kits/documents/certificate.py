"""What a certificate of completion says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar

from errands.kits.documents.errors import DocumentError
from errands.kits.documents.picture import Picture
from errands.kits.documents.text import Texts, direction
from errands.kits.documents.values import check_language, check_url, day_data, picture_data, qr

_MOST = {
    "course": 300,
    "student": 300,
    "title": 200,
    "issuer": 100,
    "number": 40,
    "verify_url": 300,
    "signed_by": 100,
}
"""The most characters of each text; so many fit on the page even where all are wide."""
_MAY_BE_EMPTY = {"issuer", "signed_by"}
_TEXTS = ("title", "course", "student", "number", "issuer", "signed_by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What stands on a certificate of completion.

    `course` and `student` (up to 300 characters each), `title` (200) and `issuer` (100, may be empty): any
    text in any script. `completed_on`: the day of completion, not of printing. `number` (40): the
    certificate's own. `verify_url` (300): the public page, http or https, where anybody can check it;
    printed, and as a QR code. `signed_by` (100, may be empty): who signs; `signature` and `logo`: pictures.
    `language`: that of the template's own words, as a BCP 47 tag; it also decides between the Chinese,
    Japanese and Korean shapes of a character.

    Raises `DocumentError` for values from which no certificate can be made.
    """

    template: ClassVar[str] = "certificate.typ"

    course: str
    student: str
    completed_on: date
    number: str
    verify_url: str
    title: str = "Certificate of Completion"
    issuer: str = ""
    signed_by: str = ""
    signature: Picture | None = None
    logo: Picture | None = None
    language: str = "en"

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            text = getattr(self, name)
            if not text.strip() and name not in _MAY_BE_EMPTY:
                raise DocumentError(f"a certificate needs a {name}, and it is empty")
            if len(text) > most:
                raise DocumentError(
                    f"the {name} of the certificate has {len(text)} characters; {most} are the most"
                )
        check_url(self.verify_url)
        check_language(self.language)
        if isinstance(self.completed_on, datetime):
            object.__setattr__(self, "completed_on", self.completed_on.date())

    @property
    def day(self) -> date:
        """The day in the file's properties."""
        return self.completed_on

    @property
    def tagged(self) -> bool:
        """A certificate always is."""
        return True

    def pictures(self) -> list[Picture]:
        """Those that it shows."""
        return [picture for picture in (self.logo, self.signature) if picture]

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        values = {name: texts.plain(getattr(self, name), name) for name in _TEXTS}
        for name, text in values.items():
            if not text and getattr(self, name):
                raise DocumentError(f"the {name} of the certificate holds nothing that can be seen")
        return {
            **values,
            "completed_on": day_data(self.completed_on),
            "verify_url": self.verify_url,
            "qr": qr(self.verify_url),
            "turned": [name for name, text in values.items() if direction(text) == "rtl"],
            "logo": picture_data(self.logo, texts, "logo"),
            "signature": picture_data(self.signature, texts, "signature"),
        }
