"""Letters read by both engines, in real child processes: text, confidence, language, and what is refused."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import typst
from PIL import Image

from errands.children import MIB, ChildCrashed, Limits
from errands.fetching import AddressRefused, Fetcher, FetchRefused, Guard
from errands.kits.ocr import ImageBounds, LocalOcr, OcrRefused
from errands.kits.ocr.local import guarded
from letters import KINDS, LETTERS, error_rate, letter
from pictures import encoded, photo
from processes import kill_limited_children
from programs import tesseract


@pytest.fixture(params=["tesserocr", "tesseract"])
async def ocr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalOcr]:
    if request.param == "tesseract":
        tesseract(monkeypatch)
    made = LocalOcr(request.param, processes=1)
    yield made
    await made.aclose()


@pytest.fixture
async def library() -> AsyncIterator[LocalOcr]:
    """One engine, for what does not depend on it."""
    made = LocalOcr(processes=1)
    yield made
    await made.aclose()


def pdf(tmp_path: Path, source: str, **files: bytes) -> bytes:
    """A PDF made from typst's markup."""
    for name, data in files.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    (tmp_path / "letter.typ").write_text(source)
    made = typst.compile(str(tmp_path / "letter.typ"))
    assert isinstance(made, bytes)
    return made


# -- reading


@pytest.mark.parametrize("kind", KINDS)
async def test_letters_are_read_however_they_came(ocr: LocalOcr, kind: str) -> None:
    """A broken engine, or a page left askew or dark, errs in every fifth character and more."""
    written = letter(KINDS.index(kind), kind)
    found = await ocr.read(encoded(written.image, "JPEG", quality=90))
    assert error_rate(found.text, written.text) < 0.03
    assert found.confidence is not None
    assert 75 < found.confidence <= 100
    assert found.language == "en"
    assert found.format == "jpeg"


@pytest.mark.parametrize("degrees", [90, 180, 270])
async def test_a_page_that_lies_on_its_side_or_head_is_turned(library: LocalOcr, degrees: int) -> None:
    written = letter(1, "low")
    found = await library.read(encoded(written.image.rotate(degrees, expand=True), "PNG"))
    assert error_rate(found.text, written.text) < 0.03


async def test_the_cameras_orientation_is_honoured(library: LocalOcr) -> None:
    written = letter(2, "photo")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(written.image.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=90)
    found = await library.read(data)
    assert error_rate(found.text, written.text) < 0.03
    assert (found.pages[0].width, found.pages[0].height) == written.image.size
    assert found.pages[0].turned == 0


async def test_words_have_a_confidence_and_the_document_its_metadata(ocr: LocalOcr) -> None:
    data = encoded(letter(2, "clean").image, "PNG")
    found = await ocr.read(data)
    [page] = found.pages
    words = [word.text for word in page.words]
    assert "tuition," in words
    assert "Receipt" in words
    assert all(0 <= word.confidence <= 100 for word in page.words)
    mean = sum(word.confidence for word in page.words) / len(page.words)
    assert found.confidence == page.confidence == pytest.approx(mean, abs=0.06)
    told = found.metadata()
    assert told["engine"] in ("tesserocr", "tesseract")
    assert told["version"].startswith("5.")
    assert told["seconds"] > 0
    assert (told["size"], told["format"], told["language"]) == (len(data), "png", "en")
    assert told["pages"][0]["words"] == len(words)
    assert "text" not in told


async def test_paragraphs_stay_apart(ocr: LocalOcr) -> None:
    found = await ocr.read(encoded(letter(1, "clean").image, "PNG"))
    paragraphs = found.text.split("\n\n")
    assert paragraphs[0] == "To the commander of the second platoon"
    assert len(paragraphs) >= 4


async def test_what_is_white_on_black_or_transparent_is_read(library: LocalOcr) -> None:
    written = letter(0, "clean")
    dark = written.image.point(lambda shade: 255 - shade)
    assert error_rate((await library.read(encoded(dark, "PNG"))).text, written.text) < 0.03
    clear = Image.new("RGBA", dark.size, (0, 0, 0, 0))
    clear.putalpha(dark)
    assert error_rate((await library.read(encoded(clear, "PNG"))).text, written.text) < 0.03


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (1000, 2), (800, 600)])
async def test_a_page_without_words_is_an_empty_text(ocr: LocalOcr, size: tuple[int, int]) -> None:
    found = await ocr.read(encoded(Image.new("L", size, 255), "PNG"))
    assert (found.text, found.confidence, found.language) == ("", None, None)
    assert found.pages[0].words == ()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Sehr geehrte Frau Weber, bitte entschuldigen Sie das Fehlen meiner Tochter.", "de"),
        ("Estimada profesora, le ruego que disculpe la ausencia de mi hijo el martes.", "es"),
        ("4471-B 9:30", None),
    ],
)
async def test_the_language_is_told(
    library: LocalOcr, tmp_path: Path, text: str, language: str | None
) -> None:
    assert (await library.read(pdf(tmp_path, text.replace("-", "\\-")))).language == language


# -- several pages


async def test_a_text_layer_is_taken_as_it_is(library: LocalOcr, tmp_path: Path) -> None:
    made = pdf(tmp_path, "Zoë’s résumé, page one: a text.\n#pagebreak()\nand page two.")
    found = await library.read(made)
    assert [page.text for page in found.pages] == ["Zoë’s résumé, page one: a text.", "and page two."]
    assert found.text == "Zoë’s résumé, page one: a text.\n\nand page two."
    assert {page.source for page in found.pages} == {"text"}
    assert found.confidence is None
    assert found.format == "pdf"


async def test_scanned_pages_are_read_beside_pages_of_text(ocr: LocalOcr, tmp_path: Path) -> None:
    written = letter(0, "clean")
    scan = encoded(written.image, "PNG")
    source = '#page(margin: 0pt)[#image("scan.png", width: 100%, height: 50%)]\nA typed answer.'
    found = await ocr.read(pdf(tmp_path, source, scan=scan))
    assert [page.source for page in found.pages] == ["ocr", "text"]
    assert error_rate(found.pages[0].text, written.text) < 0.03
    assert found.pages[1].text == "A typed answer."


async def test_a_stamp_on_a_scan_is_not_its_text(library: LocalOcr, tmp_path: Path) -> None:
    written = letter(3, "clean")
    source = (
        "#set page(width: 248mm, height: 175mm, margin: 0pt)\n#place(bottom)[Received 14 October 2025]\n"
        '#image("scan.png", width: 100%)'
    )
    found = await library.read(pdf(tmp_path, source, scan=encoded(written.image, "PNG")))
    assert found.pages[0].source == "ocr"
    assert "Jupiter" in found.text


async def test_a_searchable_scan_is_not_read_again(library: LocalOcr, tmp_path: Path) -> None:
    hidden = LETTERS[3].replace("$", "\\$")
    source = (
        "#set page(width: 248mm, height: 175mm, margin: 0pt)\n"
        f"#place[#text(fill: white, size: 4pt)[{hidden}]]\n"
        '#image("scan.png", width: 100%)'
    )
    found = await library.read(pdf(tmp_path, source, scan=encoded(letter(3, "clean").image, "PNG")))
    assert found.pages[0].source == "text"
    assert error_rate(found.text, LETTERS[3]) < 0.03


async def test_all_pages_of_a_tiff_are_read(library: LocalOcr) -> None:
    pages = [letter(number, "low") for number in range(3)]
    file = BytesIO()
    pages[0].image.save(
        file, "TIFF", save_all=True, append_images=[page.image for page in pages[1:]], compression="tiff_lzw"
    )
    found = await library.read(file.getvalue())
    assert [page.number for page in found.pages] == [1, 2, 3]
    for page, written in zip(found.pages, pages, strict=True):
        assert error_rate(page.text, written.text) < 0.03


# -- refused


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"PK\x03\x04" + bytes(40), "a ZIP archive"),
        (b"<html>", "a web page"),
        (b"%PDF-1.7\nnothing more", "the PDF is damaged"),
        (encoded(photo(300, 200))[:2000], "damaged"),
    ],
)
async def test_what_is_no_document_is_refused(library: LocalOcr, data: bytes, text: str) -> None:
    with pytest.raises(OcrRefused, match=text):
        await library.read(data)


async def test_a_locked_pdf_is_refused(library: LocalOcr, tmp_path: Path) -> None:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=BytesIO(pdf(tmp_path, "A secret.")))
    writer.encrypt("a password", algorithm="AES-256")
    file = BytesIO()
    writer.write(file)
    with pytest.raises(OcrRefused, match="locked with a password"):
        await library.read(file.getvalue())


async def test_more_pages_than_allowed_are_refused(tmp_path: Path) -> None:
    ocr = LocalOcr(processes=1, max_pages=2)
    with pytest.raises(OcrRefused, match="the PDF has 3 pages, and 2 are the most"):
        await ocr.read(pdf(tmp_path, "1\n#pagebreak()\n2\n#pagebreak()\n3"))
    file = BytesIO()
    page = Image.new("L", (50, 50))
    page.save(file, "TIFF", save_all=True, append_images=[page, page])
    with pytest.raises(OcrRefused, match="the image has 3 pages"):
        await ocr.read(file.getvalue())
    await ocr.aclose()


async def test_bounds_hold(tmp_path: Path) -> None:
    ocr = LocalOcr(processes=1, bounds=ImageBounds(max_bytes=100_000, max_pixels=1_000_000))
    with pytest.raises(OcrRefused, match="more than 1 megapixels"):
        await ocr.read(encoded(Image.new("L", (2000, 2000)), "PNG"))
    (tmp_path / "large").write_bytes(bytes(200_000))
    for document in (bytes(200_000), tmp_path / "large"):
        with pytest.raises(OcrRefused):
            await ocr.read(document)
    await ocr.aclose()


async def test_a_page_of_a_pdf_that_is_kilometres_wide_is_read_within_bounds(
    library: LocalOcr, tmp_path: Path
) -> None:
    made = pdf(tmp_path, "#set page(width: 14000pt, height: 14000pt)\n#circle(radius: 100pt)")
    assert (await library.read(made)).text == ""


async def test_a_document_that_takes_too_much_harms_nobody_else() -> None:
    ocr = LocalOcr(processes=1, limits=Limits(memory=300 * MIB))
    with pytest.raises(OcrRefused, match="more memory or time"):
        await ocr.read(encoded(Image.new("RGB", (7000, 7000), "white"), "PNG"))
    assert (await ocr.read(encoded(Image.new("L", (100, 100), 255), "PNG"))).text == ""
    await ocr.aclose()


async def test_a_document_that_computes_for_too_long_is_refused() -> None:
    ocr = LocalOcr(processes=1, limits=Limits(memory=768 * MIB, cpu_seconds=1))
    with pytest.raises(OcrRefused, match="more memory or time"):
        await ocr.read(encoded(photo(3400, 3400), "PNG", compress_level=1))
    await ocr.aclose()


async def test_a_process_that_the_system_kills_is_no_fault_of_the_document(library: LocalOcr) -> None:
    call = asyncio.ensure_future(library.read(encoded(letter(0, "clean").image, "PNG")))
    await asyncio.to_thread(kill_limited_children, call.done)
    with pytest.raises(ChildCrashed) as caught:
        await call
    assert caught.value.may_pass


# -- by address


class _Answers(http.server.BaseHTTPRequestHandler):
    pages: dict[str, tuple[str, bytes]] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        kind, data = self.pages.get(self.path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


async def test_a_document_is_fetched_and_read(server: str) -> None:
    written = letter(0, "low")
    _Answers.pages = {
        "/letter": ("image/png", encoded(written.image, "PNG")),
        "/page": ("text/html", b"<html>sign in</html>"),
    }
    ocr = LocalOcr(processes=1, fetch=guarded(Fetcher(Guard(server, allow_http=True)), 1_000_000))
    found = await ocr.read_url(f"http://{server}/letter")
    assert error_rate(found.text, written.text) < 0.03
    for path in ("page", "nothing"):
        with pytest.raises(FetchRefused):
            await ocr.read_url(f"http://{server}/{path}")
    await ocr.aclose()


async def test_addresses_inside_of_our_network_are_refused_by_default(library: LocalOcr, server: str) -> None:
    with pytest.raises(AddressRefused):
        await library.read_url(f"https://{server}/letter")
