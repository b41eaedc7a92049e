"""Reports: sections one below the other, over as many pages as they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, ClassVar, Literal, TypeAlias, cast

from errands.kits.documents.chart import Chart
from errands.kits.documents.errors import DocumentError
from errands.kits.documents.picture import Picture
from errands.kits.documents.table import Table
from errands.kits.documents.text import Texts
from errands.kits.documents.values import check_language, day_data, picture_data, shown


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside of a report; `level` 1 or 2."""

    text: str
    level: Literal[1, 2] = 1

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        return {"type": "heading", "text": texts(self.text, "heading"), "level": self.level}


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text; each line is a paragraph."""

    text: str

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        return {"type": "text", "paragraphs": texts.paragraphs(self.text, "text")}


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and what they are, such as a person's particulars; `picture` stands beside them."""

    facts: Mapping[str, object] | Iterable[tuple[str, object]]
    title: str = ""
    picture: Picture | None = None

    def __post_init__(self) -> None:
        # An iterator would be used up by the first look.
        pairs = self.facts.items() if isinstance(self.facts, Mapping) else self.facts
        object.__setattr__(self, "facts", tuple(pairs))

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        return {
            "type": "facts",
            "title": texts(self.title, "title of facts"),
            "facts": [
                {"name": texts(str(name), "name of a fact"), "value": texts(shown(value), f"fact {name}")}
                for name, value in cast("tuple[tuple[str, object], ...]", self.facts)
            ],
            "picture": picture_data(self.picture, texts, "facts"),
        }


@dataclass(frozen=True, slots=True)
class PageBreak:
    """What follows begins on a new page."""

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        return {"type": "page-break"}


Section: TypeAlias = Heading | Text | Facts | Table | Chart | Picture | PageBreak
"""What a report is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report: a title, and sections one below the other.

    `title` (up to 200 characters), `subtitle` and `issuer` (300 each): texts in any script. `as_of`: the day
    that it tells of, on the first page and in the file's properties. `notice`: what readers must know first,
    such as that it is not complete. `landscape`: pages lie. `language`: a BCP 47 tag.

    `tagged`: with structure for screen readers (PDF/UA-1). It makes a table of thousands of rows about
    sixteen times as large (900 bytes a row); say False for one that nobody reads from its start to its end.

    Raises `DocumentError` for values from which no report can be made.
    """

    template: ClassVar[str] = "report.typ"

    title: str
    sections: Sequence[Section]
    subtitle: str = ""
    issuer: str = ""
    logo: Picture | None = None
    as_of: date | None = None
    notice: str = ""
    landscape: bool = False
    language: str = "en"
    tagged: bool = True

    def __post_init__(self) -> None:
        if not self.title.strip():
            raise DocumentError("a report needs a title, and it is empty")
        for name, most in (("title", 200), ("subtitle", 300), ("issuer", 300), ("notice", 2000)):
            if len(getattr(self, name)) > most:
                raise DocumentError(f"the {name} of the report has more than {most} characters")
        check_language(self.language)
        if isinstance(self.as_of, datetime):
            object.__setattr__(self, "as_of", self.as_of.date())

    @property
    def day(self) -> date | None:
        """The day in the file's properties."""
        return self.as_of

    def pictures(self) -> list[Picture]:
        """Those that it shows."""
        found = [self.logo, *(section for section in self.sections if isinstance(section, Picture))]
        found += [section.picture for section in self.sections if isinstance(section, Facts)]
        return [picture for picture in found if picture]

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template reads."""
        title = texts.plain(self.title, "title")
        if not title:
            raise DocumentError("the title of the report holds nothing that can be seen")
        return {
            "title": title,
            "subtitle": texts(self.subtitle, "subtitle"),
            "issuer": texts(self.issuer, "issuer"),
            "author": texts.plain(self.issuer, "issuer"),
            "notice": texts(self.notice, "notice"),
            "as_of": day_data(self.as_of),
            "landscape": self.landscape,
            "logo": picture_data(self.logo, texts, "logo"),
            "sections": self._sections(texts),
        }

    def _sections(self, texts: Texts) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        level = 0
        for section in self.sections:
            if isinstance(section, Picture):
                found.append({"type": "picture", **(picture_data(section, texts, "picture") or {})})
                continue
            found.append(section.data(texts))
            if isinstance(section, Heading):
                # No level may be left out (PDF/UA-1, 7.4.2).
                level = found[-1]["level"] = min(section.level, level + 1)
            elif isinstance(section, Facts | Table) and section.title:
                level = 1
        return found
