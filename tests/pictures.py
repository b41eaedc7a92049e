"""Pictures for tests and benchmarks, the same for the same seed."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy
from PIL import Image


def photo(width: int, height: int, seed: int = 1) -> Image.Image:
    """Something with the smooth parts, edges and grain of a photograph."""
    random = numpy.random.default_rng(seed)
    coarse = random.integers(0, 256, (max(2, height // 160), max(2, width // 160), 3), dtype=numpy.uint8)
    smooth = Image.fromarray(coarse, "RGB").resize((width, height), Image.Resampling.BICUBIC)
    pixels = numpy.asarray(smooth, dtype=numpy.int16)
    grain = random.normal(0, 5, (height, width, 1)).astype(numpy.int16)
    edges = ((numpy.indices((height, width)).sum(axis=0) // 97) % 2 * 24).astype(numpy.int16)[..., None]
    return Image.fromarray((pixels + grain + edges).clip(0, 255).astype(numpy.uint8), "RGB")


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    """`image` as a file."""
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    """The image in a file of ours, with its pixels."""
    image = Image.open(BytesIO(data))
    image.load()
    return image
