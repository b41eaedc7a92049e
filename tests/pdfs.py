"""What a machine can read of a PDF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from pypdf import PdfReader


def pages_of(pdf: bytes) -> list[str]:
    """The text of each page, in single spaces."""
    pages = PdfReader(BytesIO(pdf)).pages
    return [" ".join(page.extract_text().replace("\u200b", "").split()) for page in pages]


def text_of(pdf: bytes) -> str:
    """The text of all pages."""
    return " ".join(pages_of(pdf))


def replacements_in(pdf: bytes) -> str:
    """What it says with /ActualText, where one glyph stands for several letters; readers prefer it."""
    contents = [page.get_contents() for page in PdfReader(BytesIO(pdf)).pages]
    found = [
        text
        for content in contents
        if content is not None
        for text in re.findall(rb"/ActualText\s*<FEFF([0-9A-F]+)>", content.get_data())
    ]
    return "".join(bytes.fromhex(text.decode()).decode("utf-16-be") for text in found)


def claims_of(pdf: bytes) -> set[str]:
    """The standards that it says to follow."""
    xmp = PdfReader(BytesIO(pdf)).root_object["/Metadata"].get_data().decode()  # type: ignore[union-attr]
    marks = {
        "PDF/A-2b": "<pdfaid:part>2</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance>",
        "PDF/UA-1": "<pdfuaid:part>1</pdfuaid:part>",
    }
    return {name for name, mark in marks.items() if mark in xmp}


def tags_of(pdf: bytes) -> list[Any]:
    """The elements of its structure tree, in reading order."""
    root = PdfReader(BytesIO(pdf)).root_object
    return list(_structure(root["/StructTreeRoot"])) if "/StructTreeRoot" in root else []


def names_of_tags(pdf: bytes) -> list[str]:
    """Their kinds."""
    return [str(tag["/S"]) for tag in tags_of(pdf)]


def _structure(node: Any) -> Iterator[Any]:
    kids = node.get("/K", [])
    for kid in kids if isinstance(kids, list) else [kids]:
        element = kid.get_object() if hasattr(kid, "get_object") else kid
        if hasattr(element, "get") and "/S" in element:
            yield element
            yield from _structure(element)
