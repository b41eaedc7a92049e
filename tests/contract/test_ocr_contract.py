"""What every reader of documents does: both engines, and the fake for users' tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from errands.kits.ocr import LocalOcr, Ocr, OcrRefused
from errands.kits.ocr.fake import FakeOcr
from letters import error_rate, letter
from pictures import encoded
from programs import tesseract

URL = "https://files.example/letter.png"
WRITTEN = letter(3, "low")
DATA = encoded(WRITTEN.image, "PNG")


@pytest.fixture(params=["tesserocr", "tesseract", "fake"])
async def ocr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ocr]:
    async def fetch(url: str) -> bytes:
        return {URL: DATA}[url]

    if request.param == "fake":
        yield FakeOcr(WRITTEN.text, refuse=(b"no document",))
        return
    if request.param == "tesseract":
        tesseract(monkeypatch)
    local = LocalOcr(request.param, processes=1, fetch=fetch)
    yield local
    await local.aclose()


async def test_bytes_a_path_and_an_address_are_read(ocr: Ocr, tmp_path: Path) -> None:
    (tmp_path / "letter").write_bytes(DATA)
    for found in (await ocr.read(DATA), await ocr.read(tmp_path / "letter"), await ocr.read_url(URL)):
        assert error_rate(found.text, WRITTEN.text) < 0.03
        assert found.confidence is not None
        assert 75 < found.confidence <= 100
        assert found.language == "en"
        [page] = found.pages
        assert (page.number, page.source, page.text) == (1, "ocr", found.text)
        assert " ".join(word.text for word in page.words) == " ".join(page.text.split())


async def test_the_metadata_is_json_without_the_text(ocr: Ocr) -> None:
    told = (await ocr.read(DATA)).metadata()
    assert json.loads(json.dumps(told)) == told
    assert {"confidence", "language", "pages", "format", "size", "engine", "version", "seconds"} == set(told)
    assert "Jupiter" not in json.dumps(told)


@pytest.mark.parametrize("data", [b"", b"no document"])
async def test_what_is_no_document_is_refused(ocr: Ocr, data: bytes) -> None:
    with pytest.raises(OcrRefused):
        await ocr.read(data)
