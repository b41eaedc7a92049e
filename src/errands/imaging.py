"""Opening images that strangers made. For kits, and for code in a child process (`errands.children`).

Pillow is imported where it is needed: the process that asks has no use for it.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from errands.core.errors import ConfigurationError, Discard

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP")
"""What is opened, by Pillow's names. Nothing that is a program, a document, or a list of addresses."""

_NAMES = "JPEG, PNG, WebP, GIF, AVIF, TIFF or BMP"
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"BM")
_OTHERS = (
    (b"%pdf", "a PDF"),
    (b"pk\x03\x04", "a ZIP archive or an Office document"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "XML"),
    (b"8bps", "a Photoshop file"),
    (b"mz", "a program"),
    (b"\x7felf", "a program"),
    (b"#!", "a script"),
)
_AVIF = frozenset((b"avif", b"avis"))
_HEIC = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))

# A page with a few lines in black and white has some 500 pixels a byte; what unpacks to more is made for it.
_MOST_PIXELS_PER_BYTE = 1000
_PLAUSIBLE_PIXELS = 10_000_000

_MEGA = 1_000_000


class ImageRefused(Discard):
    """This file is no image that we open, or one that is damaged or too large. No repetition mends it.

    The text says what is wrong, and may be shown to whoever sent the file.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBounds:
    """How large an image may be.

    Args:
        max_bytes: of the file.
        max_pixels: of the decoded image (its first frame).
        max_side: pixels of the longer side.

    Raises:
        ConfigurationError: a bound is not above 0.
    """

    max_bytes: int = 30 * 1024 * 1024
    max_pixels: int = 50 * _MEGA
    max_side: int = 65_500

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"ImageBounds({name}={getattr(self, name)}): give more than 0")

    def check_size(self, size: int) -> None:
        """Refuse a file of `size` bytes before it is read."""
        if size == 0:
            raise ImageRefused("the file is empty")
        if size > self.max_bytes:
            raise ImageRefused(
                f"the file has {size / _MEGA:.1f} MB, and {self.max_bytes / _MEGA:.1f} MB are the most"
            )

    def read(self, path: Path) -> bytes:
        """The file at `path`; not a byte more of it than is allowed."""
        with path.open("rb") as file:
            data = file.read(self.max_bytes + 1)
        if len(data) > self.max_bytes:
            self.check_size(path.stat().st_size)
        return data


def open_image(data: bytes, bounds: ImageBounds) -> Image:
    """The image in `data`, of which only the header was read.

    The content alone says what it is; a file's name or content type do not.

    Raises:
        ImageRefused: it is none of `FORMATS`, or larger than `bounds` allow, or its header is damaged.
    """
    from PIL import Image

    bounds.check_size(len(data))
    _check_kind(bytes(data[:64]))
    Image.MAX_IMAGE_PIXELS = bounds.max_pixels
    with damaged("its header can't be read"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ImageRefused(f"the image has more than {bounds.max_pixels / _MEGA:g} megapixels") from None
    width, height = image.size
    pixels = width * height
    if max(width, height) > bounds.max_side:
        raise ImageRefused(
            f"the image is {width} x {height} pixels; a side has {bounds.max_side} at the most"
        )
    if pixels > max(_PLAUSIBLE_PIXELS, len(data) * _MOST_PIXELS_PER_BYTE):
        raise ImageRefused(
            f"the image claims {width} x {height} pixels in a file of {len(data)} bytes: it unpacks to far "
            "more than a picture of that size would"
        )
    return image


@contextmanager
def damaged(what: str) -> Iterator[None]:
    """Around calls of Pillow that read a stranger's file: whatever they raise means that it is damaged."""
    try:
        yield
    except (ImageRefused, MemoryError):
        raise
    # Its plugins raise what Python raises in them: SyntaxError, struct.error, KeyError, ...
    except Exception as error:
        raise ImageRefused(f"the image is damaged: {what} ({error or type(error).__name__})") from error


def orientation(image: Image) -> int:
    """How the camera was held: 1 to 8, as EXIF has it. 1 where that is missing or can't be read."""
    try:
        found = image.getexif().get(0x0112, 1)
    # Metadata is the part of a file that is broken most often, and the picture is fine without it.
    except (
        OSError,
        SyntaxError,
        LookupError,
        ValueError,
        TypeError,
        ArithmeticError,
        EOFError,
        struct.error,
    ):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def upright(image: Image, orientation: int) -> Image:
    """`image` turned and mirrored so that it stands as it was seen."""
    from PIL.Image import Transpose

    turns = (
        None,
        Transpose.FLIP_LEFT_RIGHT,
        Transpose.ROTATE_180,
        Transpose.FLIP_TOP_BOTTOM,
        Transpose.TRANSPOSE,
        Transpose.ROTATE_270,
        Transpose.TRANSVERSE,
        Transpose.ROTATE_90,
    )
    turn = turns[orientation - 1]
    return image if turn is None else image.transpose(turn)


def eight_bit(image: Image) -> Image:
    """`image` with 8 bits a channel, where it had 16 or was black and white; else itself.

    Raises:
        ImageRefused: its numbers are no shades of anything (32 bits, floating point).
    """
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda shade: shade * (1 / 256)).convert("L")
    if image.mode in ("I", "F"):
        raise ImageRefused("the image has 32 bits a pixel, as measurements have; save it with 8 or 16")
    return image


def _check_kind(head: bytes) -> None:
    if head.startswith(_BEGINNINGS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, len(head), 4))}
        if brands & _AVIF:
            return
        if brands & _HEIC:
            raise ImageRefused("the file is a HEIC photo; send it as JPEG")
        raise ImageRefused(f"the file is a film, not an image: send {_NAMES}")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    other = next((name for beginning, name in _OTHERS if text.startswith(beginning)), "something else")
    raise ImageRefused(f"the file is no image that is read here but {other}: send {_NAMES}")
