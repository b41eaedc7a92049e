"""The OCR kit without reading: what is installed, what is provided, and how pages are prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from errands import ConfigurationError, Errands, Settings
from errands.fetching import Fetcher, FetchRefused
from errands.fetching.fake import FakeFetcher
from errands.kits import ocr as kit
from errands.kits.ocr import LocalOcr, Ocr, OcrRefused
from errands.kits.ocr.engines import _from_table
from errands.kits.ocr.fake import FakeOcr
from errands.kits.ocr.local import guarded
from errands.kits.ocr.preparing import prepared, skew
from letters import error_rate, letter


def test_the_kit_provides_ocr() -> None:
    app = Errands("letters", settings=Settings(inline=True))
    fake = FakeOcr(texts={"https://x.example/1": "one"})
    app.use(kit.kit(fake))

    @app.task(name="read_letter")
    async def read_letter(url: str, *, ocr: Ocr) -> str:
        return (await ocr.read_url(url)).text

    assert read_letter.delay("https://x.example/1").get() == "one"
    assert fake.calls == ["https://x.example/1"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"ocr_languages": "eng+xyz"}, "no language data for xyz"),
        ({"ocr_languages": "../../etc"}, "Tesseract's codes"),
        ({"ocr_tessdata": Path("/nowhere")}, "no folder /nowhere"),
        ({"ocr_engine": "tesseract"}, 'no program "tesseract" on PATH'),
    ],
)
def test_what_is_not_installed_is_told_at_start(
    settings: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    app = Errands("letters", settings=Settings(inline=True, **settings))
    with pytest.raises(ConfigurationError, match=text):
        app.use(kit.kit())


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="tesserocr and tesseract"):
        LocalOcr("abbyy")  # type: ignore[arg-type]


def test_a_program_that_does_not_work_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tesseract").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "tesseract").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ConfigurationError, match="does not work"):
        LocalOcr("tesseract")


async def test_the_apps_fetcher_is_used_where_there_is_one(tmp_path: Path) -> None:
    app = Errands("letters", settings=Settings(inline=True))
    fetcher = FakeFetcher()
    fetcher.add("https://x.example/letter", b"%PDF-1.7 nothing", "application/pdf")
    app.provide(Fetcher, lambda: fetcher, scope="process")
    app.use(kit.kit())
    ocr = app.resources.instance(Ocr)  # type: ignore[type-abstract]
    with pytest.raises(OcrRefused, match="damaged"):
        await ocr.read_url("https://x.example/letter")
    assert fetcher.asked == ["https://x.example/letter"]
    await app.resources.aclose()


async def test_only_documents_are_fetched() -> None:
    fetcher = FakeFetcher()
    fetcher.add("https://x.example/page", b"<html></html>", "text/html")
    fetcher.add("https://x.example/large", b"%PDF-" + bytes(2000), "application/pdf")
    fetch = guarded(fetcher, 1000)
    for name in ("page", "large"):
        with pytest.raises(FetchRefused):
            await fetch(f"https://x.example/{name}")


def test_the_commands_table_becomes_text_in_lines_and_paragraphs() -> None:
    rows = [
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext",
        "1\t1\t0\t0\t0\t0\t0\t0\t99\t99\t-1\t",
        "5\t1\t1\t1\t1\t1\t0\t0\t9\t9\t96.5\tDear",
        "5\t1\t1\t1\t1\t2\t0\t0\t9\t9\t90\tAnn,",
        "5\t1\t1\t1\t2\t1\t0\t0\t9\t9\t88\tplease",
        "5\t1\t1\t2\t1\t1\t0\t0\t9\t9\t70\tYours",
        "5\t1\t1\t2\t1\t2\t0\t0\t9\t9\t0\t ",
        "broken",
    ]
    found = _from_table("\n".join(rows))
    assert found.text == "Dear Ann,\nplease\n\nYours"
    assert found.words == [("Dear", 96.5), ("Ann,", 90.0), ("please", 88.0), ("Yours", 70.0)]


@pytest.mark.parametrize("angle", [-6.0, -2.0, 0.0, 0.7, 5.0])
def test_lines_are_found_to_be_askew(angle: float) -> None:
    page = letter(0, "clean").image.rotate(angle, fillcolor=255)
    assert skew(page) == pytest.approx(-angle, abs=0.25)


def test_small_pages_are_enlarged_and_large_ones_reduced() -> None:
    assert max(prepared(letter(0, "low").image)[0].size) == 2400
    large = letter(0, "clean").image.resize((6000, 4200))
    page, _ = prepared(large)
    assert page.width * page.height <= 12_010_000


def test_a_page_that_is_fine_is_left_as_it_is() -> None:
    image = letter(0, "clean").image
    page, turned = prepared(image)
    assert (page.size, turned) == (image.size, 0.0)


def test_the_error_rate_counts_changes() -> None:
    assert error_rate("a  b\nc", "a b c") == 0
    assert error_rate("", "abcd") == 1
    assert error_rate("kitten", "sitting") == pytest.approx(3 / 7)
    assert error_rate("abXcd", "abcd") == 0.25
