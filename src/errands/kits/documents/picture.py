"""Pictures that stand in a document: a logo, a signature, a photo."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from errands.kits.documents.errors import DocumentError

MOST_BYTES = 5_000_000
MOST_PIXELS = 30_000_000
"""Limits of one picture; the pixels are read from its header, before anything is decoded."""

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG or JPEG, and what it shows.

    `data`: the bytes of the file, up to 5 MB and 30 million pixels; or the path it is read from. `alt`: what
    it shows, for those who can't see it (up to 500 characters); every picture needs one. `width`: in
    millimetres, for a picture that is a section of a report; narrower where the page is. `caption` stands
    below it there.

    Raises `DocumentError` for what is no such picture.
    """

    data: bytes | Path
    alt: str
    width: float = 80
    caption: str = ""
    format: str = field(init=False)
    """`png` or `jpg`, by the data."""

    def __post_init__(self) -> None:
        if isinstance(self.data, Path):
            object.__setattr__(self, "data", _read(self.data))
        data = self.content
        if not self.alt.strip() or len(self.alt) > 500:
            raise DocumentError("a picture needs an alt text of 1 to 500 characters that says what it shows")
        if not 1 <= self.width <= 1000:
            raise DocumentError(f"a picture of {self.width} mm in width: 1 to 1000 are possible")
        if len(data) > MOST_BYTES:
            raise DocumentError(
                f"a picture of {len(data):,} bytes: {MOST_BYTES:,} are the most; make it smaller"
            )
        found = _png(data) or _jpeg(data)
        if found is None:
            raise DocumentError("a picture must be a PNG or JPEG file, and this one is neither or is cut off")
        kind, width, height = found
        if not 0 < width * height <= MOST_PIXELS:
            raise DocumentError(f"a picture of {width} x {height} pixels: {MOST_PIXELS:,} are the most")
        object.__setattr__(self, "format", kind)

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return cast(bytes, self.data)

    @property
    def name(self) -> str:
        """The file's name inside of the typesetter, by its content."""
        return f"{hashlib.sha256(self.content).hexdigest()[:32]}.{self.format}"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DocumentError(f"picture {path.name}: {MOST_BYTES:,} bytes are the most; make it smaller")
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"picture {path.name} can't be read: {error.strerror}") from error


def _png(data: bytes) -> tuple[str, int, int] | None:
    """PNG (ISO/IEC 15948): the size is in the first chunk, and IEND closes the file."""
    if data[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or len(data) < 24 or b"IEND" not in data[-64:]:
        return None
    return ("png", *struct.unpack(">II", data[16:24]))


def _jpeg(data: bytes) -> tuple[str, int, int] | None:
    """JPEG (ITU-T T.81): the size is in the frame header, after any number of other segments."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:
            at += 1  # padding between segments
        elif marker in _JPEG_SIZES:
            # What ends a whole file can't be part of its picture (B.1.1.5).
            if data.find(b"\xff\xd9", at) < 0:
                return None
            height, width, components = struct.unpack(">HHB", data[at + 5 : at + 10])
            if components == 4:
                raise DocumentError("a picture in CMYK needs a colour profile here: save it as RGB")
            return "jpg", width, height
        else:
            at += 2 + max(length, 2)
    return None
