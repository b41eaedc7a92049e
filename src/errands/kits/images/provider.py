"""What every maker of images can do, and what it takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from errands import ConfigurationError

Format = Literal["jpeg", "webp", "avif", "png"]

Done = Literal[
    "first_frame",
    "metadata_removed",
    "8_bit",
    "resized",
    "turned",
    "srgb",
    "profile_ignored",
    "flattened",
]
"""What was done to an image; see docs/images.md for what each means."""

SUFFIXES: dict[Format, str] = {"jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "png": ".png"}
_LONGEST_SIDE: dict[Format, int] = {"jpeg": 65_500, "webp": 16_383, "avif": 16_384, "png": 65_500}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One form in which an image is wanted.

    Args:
        max_size: pixels of width and height that it must fit into. It keeps its shape and is never enlarged.
        format: "jpeg", "webp", "avif", or "png". Transparent parts become white in "jpeg", which has none.
        quality: 1 to 100; "png" loses nothing and takes no notice of it.

    Raises:
        ConfigurationError: no image can be made so.
    """

    max_size: tuple[int, int] = (1920, 1080)
    format: Format = "jpeg"
    quality: int = 85

    def __post_init__(self) -> None:
        if self.format not in SUFFIXES:
            raise ConfigurationError(f"Variant(format={self.format!r}): there are {', '.join(SUFFIXES)}")
        most = _LONGEST_SIDE[self.format]
        if len(self.max_size) != 2 or not all(0 < side <= most for side in self.max_size):
            raise ConfigurationError(
                f"Variant(max_size={self.max_size}): give a width and a height of 1 to {most} pixels"
            )
        if not 1 <= self.quality <= 100:
            raise ConfigurationError(f"Variant(quality={self.quality}): give 1 to 100")


@dataclass(frozen=True, slots=True)
class Source:
    """What an image was: its format (by its content), its size in pixels as it is seen, its size in bytes,
    and whether it was animated."""

    format: str
    width: int
    height: int
    size: int
    animated: bool


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """An image that was made: its bytes and what is to know of them.

    `width`, `height`: pixels. `sha256`: in hex, of the bytes. `done`: what was done to `source` for it.
    """

    data: bytes
    width: int
    height: int
    format: Format
    sha256: str
    done: tuple[Done, ...]
    source: Source

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    @property
    def content_type(self) -> str:
        """Its media type, such as `image/jpeg`."""
        return f"image/{self.format}"

    @property
    def suffix(self) -> str:
        """The ending for a file's name, such as `.jpg`."""
        return SUFFIXES[self.format]


class Images(Protocol):
    """Makes images smaller. A task asks for it by type (`*, images: Images`)."""

    @property
    def max_bytes(self) -> int:
        """The most bytes that the file of an image may have."""
        ...

    async def compress(self, image: bytes | Path, *variants: Variant) -> list[CompressedImage]:
        """`image` (its bytes, or the path of a local file) in each of the variants, in their order.

        Without variants it is made a JPEG of quality 85 that fits into 1920 x 1080. All of them come from one
        decode. They stand upright, are in sRGB, and hold pixels alone: no place, no date, no camera, no
        comment, nothing that was hidden behind the image.

        Raises:
            ImageRefused: the file is no image, or a damaged one, or too large; a `Discard`, with a text for
                whoever sent it.
            ChildError: it was not done for a reason that may pass.
        """
        ...
