"""Pictures in documents: which are taken, which are refused, and that they are described."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pypdf import PdfReader
from tests.pdfs import tags_of, text_of

from errands.kits.documents import Certificate, DocumentError, Facts, Picture, Report, TypstDocuments


@pytest.fixture(scope="module")
def documents() -> Iterator[TypstDocuments]:
    typeset = TypstDocuments()
    yield typeset
    typeset.close()


def file(kind: str, mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> bytes:
    made = BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(made, kind)
    return made.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "1"), ("JPEG", "RGB"), ("JPEG", "L")],
)
async def test_png_and_jpeg_are_shown_and_described(documents: TypstDocuments, kind: str, mode: str) -> None:
    picture = Picture(file(kind, mode), alt="Two birds", caption="Birds, by Ana")
    pdf = await documents.report(
        Report(title="Birds", sections=[picture, Facts({"a": 1}, picture=picture)], logo=picture)
    )
    assert "Birds, by Ana" in text_of(pdf)
    assert [tag["/Alt"] for tag in tags_of(pdf) if tag["/S"] == "/Figure"] == ["Two birds"] * 3
    (image,) = {image.data for image in PdfReader(BytesIO(pdf)).pages[0].images}
    assert image


async def test_a_certificate_is_signed_under_a_logo(documents: TypstDocuments) -> None:
    pdf = await documents.certificate(
        Certificate(
            course="Botany", student="Ana", completed_on=date(2026, 3, 5), number="N-1",
            verify_url="https://school.example/N-1", signed_by="Dr. Haddad",
            logo=Picture(file("PNG"), alt="The school's seal"),
            signature=Picture(file("PNG", size=(2000, 10)), alt="Signature of Dr. Haddad"),
        )
    )  # fmt: skip
    assert "Dr. Haddad" in text_of(pdf)
    assert len(PdfReader(BytesIO(pdf)).pages) == 1
    found = [tag["/Alt"] for tag in tags_of(pdf) if tag["/S"] == "/Figure"]
    assert found[:2] == ["The school's seal", "Signature of Dr. Haddad"]


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 60,000 pixels wide and high."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "about"),
    [
        (b"", "PNG or JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG or JPEG"),
        (b"%PDF-1.7", "PNG or JPEG"),
        (file("GIF"), "PNG or JPEG"),
        (file("PNG")[:500], "cut off"),
        (file("JPEG")[:800], "cut off"),
        (file("JPEG")[:30], "cut off"),
        (file("JPEG", "CMYK"), "CMYK"),
        (bomb(), "60000 x 60000 pixels"),
        (b"\x89PNG" + b"\0" * 5_000_000, "5,000,004 bytes"),
    ],
)
def test_other_files_are_refused_before_anything_is_decoded(data: bytes, about: str) -> None:
    with pytest.raises(DocumentError, match=about):
        Picture(data, alt="x")


async def test_a_picture_that_is_broken_inside_is_refused(documents: TypstDocuments) -> None:
    good = file("PNG")
    broken = good[:100] + b"\0" * 400 + good[500:]
    with pytest.raises(DocumentError, match="picture of the document can't be read"):
        await documents.report(Report(title="x", sections=[Picture(broken, alt="x")]))


def test_every_picture_is_described() -> None:
    with pytest.raises(DocumentError, match="alt text"):
        Picture(file("PNG"), alt=" ")


def test_a_picture_may_be_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    data = file("PNG")
    path.write_bytes(data)
    assert Picture(path, alt="Logo") == Picture(data, alt="Logo")
    with pytest.raises(DocumentError, match=r"none\.png can't be read: No such file"):
        Picture(tmp_path / "none.png", alt="Logo")
    path.write_bytes(b"x" * 5_000_001)
    with pytest.raises(DocumentError, match=r"logo\.png: 5,000,000 bytes"):
        Picture(path, alt="Logo")


async def test_a_preview_is_the_first_page_in_bounds(documents: TypstDocuments) -> None:
    report = Report(title="x", sections=[], landscape=True)
    pdf = await documents.report(report)
    for bounds in ((800, 1200), (300, 100), (16, 4000)):
        image = Image.open(BytesIO(await documents.preview(pdf, width=bounds[0], height=bounds[1])))
        assert image.format == "PNG"
        assert image.width <= bounds[0]
        assert image.height <= bounds[1]
        assert image.width == bounds[0] or image.height == bounds[1]
        assert image.width > image.height or bounds[0] == 16
    colours = Image.open(BytesIO(await documents.preview(report))).convert("RGB").getcolors(100_000)
    assert colours is not None
    assert len(colours) > 10


@pytest.mark.parametrize("data", [b"", b"no PDF", b"%PDF-1.7 cut off", b"%PDF-1.7\n%%EOF"])
async def test_what_is_no_pdf_has_no_preview(documents: TypstDocuments, data: bytes) -> None:
    with pytest.raises(DocumentError, match="PDF"):
        await documents.preview(data)
    with pytest.raises(DocumentError, match="0 x 1200"):
        await documents.preview(data, width=0)
