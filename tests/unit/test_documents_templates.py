"""Templates of a school's own: what takes the place of what, and what is refused at the start."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from tests.pdfs import text_of

from errands import Errands, Settings
from errands.core.errors import ConfigurationError
from errands.kits import documents as documents_kit
from errands.kits.documents import Certificate, DocumentError, Documents, Report, Table, TypstDocuments
from errands.kits.documents.samples import SAMPLES
from errands.kits.documents.templates import OURS, names
from errands.worker.loop import process_loop

CERTIFICATE = SAMPLES[0]
REPORT = Report(title="Grades", sections=[Table(["Student"], [["Ana"]])])


async def made(folder: Path, *documents: Report | Certificate) -> list[str]:
    typeset = TypstDocuments(templates=folder)
    typeset.check()
    found = []
    for document in documents:
        make = typeset.report if isinstance(document, Report) else typeset.certificate
        found.append(text_of(await make(document)))  # type: ignore[arg-type]
    await typeset.aclose()
    return found


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def test_a_file_takes_the_place_of_ours_and_may_use_files_beside_it(tmp_path: Path) -> None:
    write(
        tmp_path, "pictures/logo.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>'
    )
    write(
        tmp_path,
        "certificate.typ",
        '#import "words.typ": words\n#let data = json(bytes(sys.inputs.data))\n'
        '#set document(title: "Urkunde")\n#set text(font: data.fonts.serif, lang: "de")\n'
        '#image("pictures/logo.svg", alt: "Logo")\nUrkunde für #data.student, #words(data).certifies',
    )
    assert isinstance(CERTIFICATE, Certificate)
    certificate, report = await made(tmp_path, CERTIFICATE, REPORT)
    assert certificate.startswith("Urkunde für Ana María")
    assert certificate.endswith("This certifies that")
    assert "Student Ana" in report


async def test_what_documents_share_can_be_replaced_alone(tmp_path: Path) -> None:
    words = (OURS / "words.typ").read_text().replace("No entries", "Nothing here")
    write(tmp_path, "words.typ", words)
    write(tmp_path, "style.typ", (OURS / "style.typ").read_text().replace("#1d5c63", "#7a1f3d"))
    (text,) = await made(tmp_path, Report(title="Grades", sections=[Table(["Student"], [])]))
    assert "Nothing here" in text


@pytest.mark.parametrize(
    ("name", "source", "about"),
    [
        ("report.typ", "#let data = 1\n#panic(", r"report\.typ, line 2"),
        ("report.typ", '#read("/etc/passwd")', r"report\.typ, line 1: file not found"),
        ("report.typ", '#read("../../secret")', r"report\.typ, line 1: .*escape the project root"),
        ("report.typ", "Hello", "PDF/UA-1 error: missing document title"),
        ("parts.typ", "#let rows = 1", r"\.typ, line \d+: unresolved import"),
        ("transcript.typ", "\n\n#json(bytes(sys.inputs.data)).nobody", r"transcript\.typ, line 3"),
        ("report.typ", '#import "@preview/cetz:0.3.4"', r"report\.typ, line 1, imports a package"),
        ("report.typ", '#import "@pre" + "view/cetz:0.3.4"', r"report\.typ, line 1: failed to download"),
        ("raport.typ", "Hello", r"has the name of a document template: .*report\.typ"),
    ],
)
def test_a_broken_template_is_named_at_the_start(tmp_path: Path, name: str, source: str, about: str) -> None:
    write(tmp_path, name, source)
    app = Errands("school", settings=Settings(home=tmp_path / "home", inline=True))
    with pytest.raises(ConfigurationError, match=about):
        app.use(documents_kit.kit(templates=tmp_path))


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder of document templates"):
        TypstDocuments(templates=tmp_path / "none")
    write(tmp_path, "report.typ", "Hello")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(ConfigurationError, match="passwd leads out of its folder"):
        TypstDocuments(templates=tmp_path)
    (tmp_path / "passwd").unlink()
    (tmp_path / "report.typ").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"report\.typ is not UTF-8"):
        TypstDocuments(templates=tmp_path)


async def test_a_comment_may_speak_of_packages(tmp_path: Path) -> None:
    write(tmp_path, "report.typ", '// no #import "@preview/cetz"\n' + (OURS / "report.typ").read_text())
    (text,) = await made(tmp_path, REPORT)
    assert "Student Ana" in text


async def test_templates_do_not_change_while_an_app_runs(tmp_path: Path) -> None:
    write(tmp_path, "report.typ", (OURS / "report.typ").read_text())
    typeset = TypstDocuments(templates=tmp_path)
    before = await typeset.report(REPORT)
    write(tmp_path, "report.typ", "#panic()")
    assert await typeset.report(REPORT) == before
    await typeset.aclose()


async def test_a_template_that_shows_a_letter_without_a_font_is_named(tmp_path: Path) -> None:
    write(tmp_path, "report.typ", (OURS / "report.typ").read_text() + "\n\U00013000")
    typeset = TypstDocuments(templates=tmp_path)
    with pytest.raises(DocumentError, match=r"U\+13000 .*report\.typ"):
        await typeset.report(REPORT)
    await typeset.aclose()


def test_an_app_with_good_templates_starts_and_uses_them(tmp_path: Path) -> None:
    write(tmp_path / "ours", "words.typ", (OURS / "words.typ").read_text().replace("As of", "Told on"))
    app = Errands("school", settings=Settings(home=tmp_path, inline=True))
    app.use(documents_kit.kit(templates=tmp_path / "ours"))

    @app.task(name="make", queue="reports")
    async def make(*, documents: Documents) -> str:
        return text_of(await documents.report(Report(title="x", sections=[], as_of=date(2026, 3, 5))))

    assert "Told on March 5, 2026" in make.delay().get()
    process_loop().run(app.resources.aclose())


def test_all_of_our_files_can_be_replaced() -> None:
    assert names() == [
        "certificate.typ", "charts.typ", "parts.typ", "preview.typ", "report.typ", "style.typ",
        "transcript.typ", "words.typ",
    ]  # fmt: skip
