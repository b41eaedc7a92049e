"""What may be uploaded, and what is made of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath
from typing import NamedTuple

MOST_BYTES = 50 * 1024 * 1024


class Purpose(StrEnum):
    """What is to be done with a file."""

    FILE = "file"  # its lines are counted
    PHOTO = "photo"  # it is made smaller, in several sizes
    LETTER = "letter"  # its text is read


_TYPES = {
    ".csv": "text/csv; charset=utf-8", ".json": "application/json", ".txt": "text/plain; charset=utf-8",
    ".gif": "image/gif", ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".png": "image/png",
    ".webp": "image/webp", ".pdf": "application/pdf",
}  # fmt: skip
_TEXTS = (".csv", ".json", ".txt")
SUFFIXES = tuple(sorted(_TYPES))


class Kind(NamedTuple):
    """The suffix that a file is kept with, its content type, and what is made of it."""

    suffix: str
    content_type: str
    purpose: Purpose


def kind_of(filename: str, purpose: Purpose | None) -> Kind | None:
    """What a file of this name is; None for no such thing, or one that cannot be for that purpose.

    By its name alone: what a browser says of the type is what the sender wanted it to say. Whether the
    content is what the name says is found out by those who read it, in a process with limits.
    """
    suffix = PurePath(filename).suffix.lower()
    if suffix not in _TYPES:
        return None
    fits = {
        Purpose.FILE: suffix in _TEXTS,
        Purpose.PHOTO: _TYPES[suffix].startswith("image/"),
        Purpose.LETTER: suffix not in _TEXTS,
    }
    chosen = purpose or next(each for each, good in fits.items() if good)
    return Kind(suffix, _TYPES[suffix], chosen) if fits[chosen] else None
