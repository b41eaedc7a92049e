"""Making a page easier to read, by the few means that were measured to help (`benchmarks/kits/ocr.py`).

On letters that lie askew by 5 degrees Tesseract loses nearly half of the text, at 75 dpi and on photographs
that are lit from one side a fifth; after this none of that is left. Of what is often advised and was tried,
more contrast changes nothing, and medians make small letters worse.
"""

from __future__ import annotations

import math

import numpy
from PIL import Image, ImageFilter

# An A4 page at 200 dpi has 1654 x 2339 pixels. Below this, letters are a few pixels high.
_SMALL_SIDE, _ENLARGED_SIDE = 1400, 2400
_MOST_ENLARGED = 3.0
# More helps nobody to read, and costs time: A4 at 300 dpi has 8.7 million.
_MOST_PIXELS = 12_000_000

_STEEPEST, _LEVEL = 7.0, 0.3  # degrees
_DARK = 90  # the middle shade of a page that is white on black


def prepared(image: Image.Image) -> tuple[Image.Image, float]:
    """`image`, in L, fit to be read; and by how many degrees it was turned against the clock."""
    page = _evenly_lit(_sized(image))
    angle = skew(page)
    if abs(angle) < _LEVEL:
        return page, 0.0
    return page.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=255), angle


def skew(page: Image.Image) -> float:
    """By how many degrees `page` is to be turned, against the clock, for its lines to be level.

    Of the slopes tried, the right one has the sharpest borders between lines and the space between them.
    """
    small = page.resize(_within(page.size, 1000), Image.Resampling.BOX)
    ink = 255 - numpy.asarray(small, dtype=numpy.float32)
    height, width = ink.shape
    if width < 64 or height < 16:
        return 0.0
    borders = numpy.linspace(0, width, 65).astype(int)
    # The ink of each row in 64 strips: sliding these against each other is turning, near enough.
    strips = numpy.add.reduceat(ink, borders[:-1], axis=1)
    centres = (borders[:-1] + borders[1:]) / 2 - width / 2
    reach = math.ceil(math.tan(math.radians(_STEEPEST + 1)) * width / 2)

    def sharpness(angle: float) -> float:
        profile = numpy.zeros(height + 2 * reach)
        for strip, centre in zip(strips.T, centres, strict=True):
            shift = reach + round(math.tan(math.radians(-angle)) * centre)
            profile[shift : shift + height] += strip
        return float(numpy.square(numpy.diff(profile)).sum())

    coarse = max(numpy.arange(-_STEEPEST, _STEEPEST + 0.1, 0.5), key=sharpness)
    found = max(numpy.arange(coarse - 0.5, coarse + 0.55, 0.1), key=sharpness)
    # A page without lines, a picture say, is no sharper one way than another.
    return float(round(found, 1)) if sharpness(found) > 1.05 * sharpness(0.0) else 0.0


def _sized(image: Image.Image) -> Image.Image:
    page = image.convert("L")
    side, pixels = max(page.size), page.width * page.height
    factor = min(_ENLARGED_SIDE / side, _MOST_ENLARGED) if side < _SMALL_SIDE else 1.0
    factor = min(factor, math.sqrt(_MOST_PIXELS / pixels))
    if factor == 1.0:
        return page
    size = max(1, round(page.width * factor)), max(1, round(page.height * factor))
    return page.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _evenly_lit(page: Image.Image) -> Image.Image:
    """`page` divided by its paper: the shade that is the brightest around each place."""
    if numpy.median(numpy.asarray(page)[::8, ::8]) < _DARK or min(page.size) < 64:
        return page
    small = page.resize((max(5, page.width // 16), max(5, page.height // 16)), Image.Resampling.BOX)
    paper = small.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.GaussianBlur(3))
    shades = numpy.asarray(page, dtype=numpy.float32) * 255
    shades /= numpy.maximum(numpy.asarray(paper.resize(page.size, Image.Resampling.BICUBIC)), 1)
    return Image.fromarray(shades.clip(0, 255).astype(numpy.uint8))


def _within(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
