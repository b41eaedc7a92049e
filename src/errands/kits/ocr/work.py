"""Reading one document, in a child process."""

from __future__ import annotations

from typing import Any

import py3langid

from errands.imaging import ImageBounds, ImageRefused
from errands.kits.ocr.engines import Engine, Recognised, engine
from errands.kits.ocr.pages import Content, is_pdf, pages_of_image, pdf_pages
from errands.kits.ocr.preparing import prepared
from errands.kits.ocr.provider import OcrRefused

# Of a page that stands on its side or its head, an engine makes little, and is not sure of it.
_UNSURE = 60.0
_TURNS = (180, 90, 270)

_LETTERS_THAT_TELL = 20  # below, a language is a guess


def prepare() -> None:
    """Load the model for languages, which takes half a second, and a temporary file."""
    py3langid.classify("")


def read(data: bytes, settings: dict[str, Any]) -> dict[str, Any]:
    """What is written in `data`: its format, its language, and its pages."""
    tesseract = engine(settings["engine"], settings["program"], settings["tessdata"], settings["languages"])
    most = settings["max_pages"]
    if is_pdf(data):
        form = "pdf"
        with pdf_pages(data, most) as contents:
            pages = [_read(tesseract, content) for content in contents]
    else:
        try:
            form, contents = pages_of_image(data, ImageBounds(**settings["bounds"]), most)
            pages = [_read(tesseract, content) for content in contents]
        except ImageRefused as refused:
            raise OcrRefused(str(refused).replace("send JPEG", "send PDF, JPEG")) from refused
    text = "\n\n".join(page["text"] for page in pages)
    return {"format": form, "language": language(text), "pages": pages, "version": tesseract.version}


def language(text: str) -> str | None:
    """The language of `text` by its ISO 639-1 code; None where there is too little of it."""
    if sum(letter.isalpha() for letter in text) < _LETTERS_THAT_TELL:
        return None
    return str(py3langid.classify(text)[0])


def _read(tesseract: Engine, content: Content) -> dict[str, Any]:
    page = {"width": content.width, "height": content.height, "turned": 0.0}
    if content.image is None:
        return page | {"source": "text", "text": content.text, "words": []}
    image, turned = prepared(content.image)
    best = tesseract.recognise(image)
    # Nothing at all is an empty page; four tries would not find more.
    if best.words and best.confidence < _UNSURE:
        for turn in _TURNS:
            again, level = prepared(content.image.rotate(turn, expand=True))
            found = tesseract.recognise(again)
            if _surely_better(found, best):
                best, turned = found, turn + level
    return page | {"source": "ocr", "text": best.text, "words": best.words, "turned": turned}


def _surely_better(found: Recognised, best: Recognised) -> bool:
    return found.confidence > best.confidence + 10 and bool(found.words)
