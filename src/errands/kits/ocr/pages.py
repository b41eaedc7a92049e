"""The pages of a document: images to be read, or text that is there already."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pypdfium2
import pypdfium2.raw as pdfium
from PIL.Image import Image

from errands.imaging import ImageBounds, damaged, eight_bit, open_image, orientation, upright
from errands.kits.ocr.provider import OcrRefused

_DPI = 300
_MOST_PIXELS = 12_000_000  # of a page of a PDF: A4 at 300 dpi has 8.7 million
# Of a page that is covered by an image, a scan: fewer letters than this are a stamp or a page number.
_ENOUGH_LETTERS = 200
_COVERED = 0.5
_MOST_UNREADABLE = 0.1


@dataclass(slots=True)
class Content:
    """A page: an image to be read, or its text. `width` and `height` in pixels, or points with a text."""

    width: int
    height: int
    image: Image | None = None
    text: str = ""


def is_pdf(data: bytes) -> bool:
    """Whether `data` is a PDF by its content; some begin with a few bytes of something else."""
    return b"%PDF-" in data[:1024]


def pages_of_image(data: bytes, bounds: ImageBounds, most: int) -> tuple[str, Iterator[Content]]:
    """The format of an image, and its pages: of a TIFF all, of others the first picture."""
    image = open_image(data, bounds)
    count = 1
    if image.format == "TIFF":
        with damaged("its pages can't be counted"):
            count = getattr(image, "n_frames", 1)
    if count > most:
        raise OcrRefused(f"the image has {count} pages, and {most} are the most")

    def pages() -> Iterator[Content]:
        for number in range(count):
            with damaged("it ends too early, or its data is broken"):
                image.seek(number)
                if image.width * image.height > bounds.max_pixels:
                    raise OcrRefused(
                        f"page {number + 1} has more than {bounds.max_pixels / 1e6:g} megapixels"
                    )
                turn = orientation(image)
                image.draft("L", _reduced(image.size))
                image.load()
                page = upright(_opaque(eight_bit(image)), turn)
            yield Content(page.width, page.height, page)

    return ("jpeg" if image.format == "MPO" else str(image.format).lower()), pages()


@contextmanager
def pdf_pages(data: bytes, most: int) -> Iterator[Iterator[Content]]:
    """The pages of a PDF, inside the block."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise OcrRefused("the PDF is locked with a password; send one that is not") from error
        raise OcrRefused(f"the PDF is damaged: {error}") from error
    try:
        if len(document) > most:
            raise OcrRefused(f"the PDF has {len(document)} pages, and {most} are the most")
        yield (_page(document, number) for number in range(len(document)))
    finally:
        document.close()


def _page(document: pypdfium2.PdfDocument, number: int) -> Content:
    try:
        page = document[number]
        width, height = page.get_size()
        text = _text(page)
        letters = sum(letter.isalnum() for letter in text)
        if letters >= (_ENOUGH_LETTERS if _is_scan(page, width * height) else 1):
            return Content(round(width), round(height), text=text)
        scale = min(_DPI / 72, math.sqrt(_MOST_PIXELS / max(1.0, width * height)))
        image = page.render(scale=scale, grayscale=True).to_pil()
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise OcrRefused(f"page {number + 1} of the PDF is damaged: {error}") from error
    return Content(image.width, image.height, image)


def _text(page: pypdfium2.PdfPage) -> str:
    """The text layer; nothing if much of it is no text, as where a font does not say what its shapes mean."""
    found = page.get_textpage().get_text_bounded()
    # U+FFFE and U+0002 stand where a word was divided at the end of a line.
    found = found.replace("\r\n", "\n").replace("\ufffe\n", "").replace("\x02\n", "")
    text = "".join(letter for letter in found if letter == "\n" or unicodedata.category(letter) != "Cc")
    unreadable = sum(letter == "\ufffd" or unicodedata.category(letter) in ("Co", "Cn") for letter in text)
    return "" if unreadable > _MOST_UNREADABLE * len(text) else text.strip()


def _is_scan(page: pypdfium2.PdfPage, area: float) -> bool:
    covered = 0.0
    for each in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        with suppress(pypdfium2.PdfiumError):
            left, bottom, right, top = each.get_bounds()
            covered = max(covered, (right - left) * (top - bottom))
    return covered > _COVERED * area


def _opaque(image: Image) -> Image:
    """What is transparent is paper."""
    from PIL import Image as images

    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = images.new("RGBA", image.size, "white")
        image = images.alpha_composite(white, image)
    return image.convert("L") if image.mode != "LAB" else image.getchannel("L")


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1.0, math.sqrt(_MOST_PIXELS / (size[0] * size[1])))
    return round(size[0] * factor), round(size[1] * factor)
