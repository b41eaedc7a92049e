"""From the names of columns as people write them to the fields of a row."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

from errands import ConfigurationError
from errands.kits.tables.errors import FileRefused

_BETWEEN = re.compile(r"[\s_\-./]+")
_MOST_TOLD = 20
REASONS = "refused because"
"""The last column of a file of refused rows. It is passed over when the file, mended, is imported again."""


@lru_cache(maxsize=10_000)
def normal(name: str) -> str:
    """`name` without what does not tell names apart: case goes, spaces and punctuation become one `_`."""
    text = unicodedata.normalize("NFKC", name[:500]).casefold().strip(" \t\r\n\ufeff*:'\"")
    return _BETWEEN.sub("_", text).strip("_")


class Columns:
    """Finds the field of each column.

    Args:
        fields: the names of the fields.
        required: those that every file must have.
        aliases: further names of a field.
        unknown: "ignore" passes over columns that are no field; "refuse" refuses the file (or the object).

    Raises:
        ConfigurationError: an alias stands for two fields, or for one that there is not.
    """

    def __init__(
        self,
        fields: Iterable[str],
        *,
        required: Iterable[str] = (),
        aliases: Mapping[str, Iterable[str]] | None = None,
        unknown: str = "ignore",
    ) -> None:
        self.fields = list(fields)
        self.required = list(required)
        self.unknown = unknown
        self._names: dict[str, str] = {}
        for field in self.fields:
            self._add(field, field)
        for field, names in (aliases or {}).items():
            if field not in self.fields:
                raise ConfigurationError(f"aliases for {field!r}: the row has no such field")
            for name in [names] if isinstance(names, str) else names:
                self._add(name, field)

    def field(self, name: str) -> str | None:
        """The field that a column called `name` is for; None if there is none."""
        return self._names.get(normal(name))

    def known(self, header: Iterable[object]) -> int:
        """How many columns of a header are fields."""
        return sum(isinstance(name, str) and self.field(name) is not None for name in header)

    def of_header(self, header: list[str]) -> list[str | None]:
        """The field of each column of a header; None for those that are passed over.

        Raises:
            FileRefused: a required column is missing, two columns are for one field, or one is unknown and
                that is not allowed.
        """
        found = [self.field(name) for name in header]
        if not any(found):
            raise FileRefused(
                f"none of the columns is known: the first line has {_list(header)}, and what is looked for "
                f"is {_list(self.fields)}. Is the header missing, or the delimiter another?"
            )
        for field in dict.fromkeys(field for field in found if field):
            twice = [name for name, other in zip(header, found, strict=True) if other == field]
            if len(twice) > 1:
                raise FileRefused(f"the columns {_list(twice)} are all {field!r}: keep one of them")
        missing = [field for field in self.required if field not in found]
        if missing:
            raise FileRefused(f"the columns {_list(missing)} are missing; there are {_list(header)}")
        strangers = [name for name, field in zip(header, found, strict=True) if field is None and name]
        strangers = [name for name in strangers if normal(name) != normal(REASONS)]
        if strangers and self.unknown == "refuse":
            raise FileRefused(f"the columns {_list(strangers)} are not known; take them out")
        return found

    def _add(self, name: str, field: str) -> None:
        other = self._names.setdefault(normal(name), field)
        if other != field:
            raise ConfigurationError(f"the column name {name!r} stands for {other!r} and for {field!r}")


def _list(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:_MOST_TOLD])
    return shown + (f" and {len(names) - _MOST_TOLD:,} more" if len(names) > _MOST_TOLD else "")
