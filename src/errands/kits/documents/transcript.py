"""Transcripts: what a student has taken, term by term, and with what result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, ClassVar

from errands.kits.documents.errors import DocumentError
from errands.kits.documents.picture import Picture
from errands.kits.documents.text import Texts
from errands.kits.documents.values import check_language, check_url, day_data, picture_data, qr, shown


@dataclass(frozen=True, slots=True)
class Mark:
    """A course and its result; `code` and `credits` may be left out."""

    course: str
    grade: str | float | Decimal
    credits: float | Decimal | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """A term (or a year) and the marks of it; `note` stands below them, such as the term's average."""

    name: str
    marks: Sequence[Mark]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A transcript of records.

    `student`: the name, in any script. `particulars`: what else tells who it is (number, date of birth,
    programme). `terms`: up to 100, with up to 500 marks each. `summary`: the whole (average, credits).
    `number` and `verify_url` (http or https, shown as a QR code too): where anybody can check it.
    `issued_on`: the day on which it tells the truth. `legend`: how to read the grades. `signed_by`,
    `signature`, `logo`: who signs, and pictures. `language`: a BCP 47 tag.

    Raises `DocumentError` for values from which no transcript can be made.
    """

    template: ClassVar[str] = "transcript.typ"

    student: str
    terms: Sequence[Term]
    issued_on: date
    number: str
    verify_url: str
    title: str = "Transcript of Records"
    issuer: str = ""
    particulars: Mapping[str, object] = field(default_factory=dict)
    summary: Mapping[str, object] = field(default_factory=dict)
    legend: str = ""
    signed_by: str = ""
    signature: Picture | None = None
    logo: Picture | None = None
    language: str = "en"

    def __post_init__(self) -> None:
        for name, most in (("student", 300), ("title", 200), ("number", 40), ("verify_url", 300)):
            text = getattr(self, name)
            if not text.strip():
                raise DocumentError(f"a transcript needs a {name}, and it is empty")
            if len(text) > most:
                raise DocumentError(
                    f"the {name} of the transcript has {len(text)} characters; {most} are the most"
                )
        if len(self.terms) > 100 or any(len(term.marks) > 500 for term in self.terms):
            raise DocumentError("a transcript has at most 100 terms with 500 marks each")
        check_url(self.verify_url)
        check_language(self.language)
        if isinstance(self.issued_on, datetime):
            object.__setattr__(self, "issued_on", self.issued_on.date())

    @property
    def day(self) -> date:
        """The day in the file's properties."""
        return self.issued_on

    @property
    def tagged(self) -> bool:
        """A transcript always is."""
        return True

    def pictures(self) -> list[Picture]:
        """Those that it shows."""
        return [picture for picture in (self.logo, self.signature) if picture]

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        student = texts.plain(self.student, "student")
        title = texts.plain(self.title, "title")
        if not student or not title:
            raise DocumentError("the student or the title of the transcript holds nothing that can be seen")
        return {
            "title": title,
            "student": texts(self.student, "student"),
            "student_plain": student,
            "issuer": texts(self.issuer, "issuer"),
            "author": texts.plain(self.issuer, "issuer"),
            "particulars": _pairs(self.particulars, texts),
            "terms": [_term(term, texts) for term in self.terms],
            "summary": _pairs(self.summary, texts),
            "legend": texts.paragraphs(self.legend, "legend"),
            "issued_on": day_data(self.issued_on),
            "number": texts.plain(self.number, "number"),
            "verify_url": self.verify_url,
            "qr": qr(self.verify_url),
            "signed_by": texts(self.signed_by, "signed_by"),
            "signature": picture_data(self.signature, texts, "signature"),
            "logo": picture_data(self.logo, texts, "logo"),
        }


def _pairs(facts: Mapping[str, object], texts: Texts) -> list[dict[str, Any]]:
    return [
        {"name": texts(name, "name of a fact"), "value": texts(shown(value), f"fact {name}")}
        for name, value in facts.items()
    ]


def _term(term: Term, texts: Texts) -> dict[str, Any]:
    where = f"term {term.name}"
    return {
        "name": texts(term.name, where),
        "note": texts(term.note, where),
        "marks": [
            {
                "code": texts(mark.code, where),
                "course": texts(mark.course, where),
                "credits": texts(shown(mark.credits), where),
                "grade": texts(shown(mark.grade), where),
            }
            for mark in term.marks
        ],
    }
