"""What stands on a certificate, whatever the name; and what a machine can read of it."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader
from tests.pdfs import replacements_in, tags_of, text_of

from errands.core.errors import ConfigurationError, Discard
from errands.kits.documents import Certificate, DocumentError, TypstDocuments, fonts

URL = "https://school.example/certificates/7F3K-QQ2M"


@pytest.fixture(scope="module")
def documents() -> Iterator[TypstDocuments]:
    typeset = TypstDocuments()
    yield typeset
    asyncio.run(typeset.aclose())


def certificate(**changes: Any) -> Certificate:
    values: dict[str, Any] = {
        "course": "An Introduction to Distributed Systems",
        "student": "Ann O’Neill",
        "completed_on": date(2026, 3, 5),
        "number": "7F3K-QQ2M",
        "verify_url": URL,
    }
    return Certificate(**values | changes)


def letters_of(text: str) -> list[str]:
    return sorted(text.replace(" ", ""))


def starts_of_text(pdf: bytes) -> list[tuple[float, float]]:
    """Where, in points, each piece of text begins on the page."""
    found: list[tuple[float, float]] = []

    def visit(text: str, cm: list[float], tm: list[float], *_: object) -> None:
        if text.strip():
            x, y = tm[4], tm[5]
            found.append((cm[0] * x + cm[2] * y + cm[4], cm[1] * x + cm[3] * y + cm[5]))

    PdfReader(BytesIO(pdf)).pages[0].extract_text(visitor_text=visit)
    return found


async def test_the_page_says_what_system_a_asks_for(documents: TypstDocuments) -> None:
    pdf = await documents.certificate(certificate(issuer="Riverside School"))
    text = text_of(pdf)
    for words in (
        "Certificate of Completion",
        "Riverside School",
        "An Introduction to Distributed Systems",
        "Ann O’Neill",
        "Completed on March 5, 2026",
        "Certificate No: 7F3K-QQ2M",
        URL,
    ):
        assert words in text
    width, height = PdfReader(BytesIO(pdf)).pages[0].mediabox[2:]
    assert (round(float(width)), round(float(height))) == (842, 595)


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (date(2024, 2, 29), "February 29, 2024"),
        (datetime(2025, 12, 31, 23, 59, tzinfo=UTC), "December 31, 2025"),
    ],
)
async def test_it_bears_the_day_of_completion(documents: TypstDocuments, day: date, words: str) -> None:
    pdf = await documents.certificate(certificate(completed_on=day))
    assert f"Completed on {words}" in text_of(pdf)
    metadata = PdfReader(BytesIO(pdf)).metadata
    assert metadata is not None
    assert metadata.creation_date == datetime(day.year, day.month, day.day, tzinfo=UTC)


async def test_it_is_tagged_titled_and_archivable(documents: TypstDocuments) -> None:
    pdf = await documents.certificate(certificate(language="en-GB"))
    reader = PdfReader(BytesIO(pdf))
    root = reader.root_object
    assert root["/Lang"] == "en-GB"
    assert root["/MarkInfo"]["/Marked"].value is True
    assert root["/ViewerPreferences"]["/DisplayDocTitle"].value is True
    assert reader.metadata is not None
    assert reader.metadata.title == "Certificate of Completion: An Introduction to Distributed Systems"
    xmp = root["/Metadata"].get_data().decode()
    for claim in ("<pdfaid:part>2<", "<pdfaid:conformance>B<", "<pdfuaid:part>1<"):
        assert claim in xmp
    tags = tags_of(pdf)
    assert [tag["/S"] for tag in tags].count("/H1") == 1
    (figure,) = (tag for tag in tags if tag["/S"] == "/Figure")
    assert URL in figure["/Alt"]


async def test_the_code_and_the_address_open_the_page_that_verifies(documents: TypstDocuments) -> None:
    page = PdfReader(BytesIO(await documents.certificate(certificate()))).pages[0]
    targets = {link.get_object()["/A"]["/URI"] for link in page["/Annots"]}
    assert targets == {URL}
    assert len(page["/Annots"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "Nguyễn Thị Minh Khai",
        "Łukasz Žižek Øster Ğül",
        "Ελένη Παπαδοπούλου",
        "Александра Жукова",
        "محمد بن عبد الله الخوارزمي",
        "רחל כהן",
        "অনন্যা রায়",
        "தமிழ்ச்செல்வி",
        "ศิริพร อนันต์",
        "ខ្មែរ សុភា",
        "王小明",
        "さくら 桜子",
        "김민준",
        "Ana María محمد अनन्या 王小明",
    ],
)
async def test_a_name_in_any_script_is_there_letter_by_letter(documents: TypstDocuments, name: str) -> None:
    empty = letters_of(text_of(await documents.certificate(certificate(student="."))))
    pdf = await documents.certificate(certificate(student=name))
    assert PdfReader(BytesIO(pdf)).metadata.subject == f"{name}, certificate 7F3K-QQ2M"  # type: ignore[union-attr]
    empty.remove(".")
    read = letters_of(text_of(pdf))
    for letter in empty:
        read.remove(letter)
    assert set(read) | set(letters_of(replacements_in(pdf))) == set(letters_of(name))


MORE = [
    "გიორგი ბერიძე",
    "Արամ Խաչատրյան",
    "ਗੁਰਪ੍ਰੀਤ ਸਿੰਘ",
    "પ્રિયા પટેલ",
    "ಅನನ್ಯ",
    "ലക്ഷ്മി",
    "සමන්ති",
    "አበበ ቢቂላ",
    "ଅନନ୍ୟା",
]


@pytest.mark.skipif(find_spec(fonts.MORE) is None, reason="the package with more fonts is not installed")
@pytest.mark.parametrize("name", MORE)
async def test_a_name_in_a_script_of_the_package_with_more_fonts(
    documents: TypstDocuments, name: str
) -> None:
    pdf = await documents.certificate(certificate(student=name))
    assert set(letters_of(name)) <= set(letters_of(text_of(pdf) + replacements_in(pdf)))


async def test_without_that_package_its_letters_are_refused_and_all_else_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fonts, "MORE", "fonts_that_nobody_has")
    documents = TypstDocuments()
    for name in MORE:
        with pytest.raises(DocumentError, match="no font has"):
            await documents.certificate(certificate(student=name))
    assert await documents.certificate(certificate(student="Ana محمد 王小明"))
    await documents.aclose()


@pytest.mark.parametrize(
    "name",
    [
        ("Maximiliana Alexandrovna Konstantinopoulou-Featherstonehaugh " * 4)[:200].strip(),
        "W" * 200,
        "王小明" * 66,
        "محمد " * 40,
        "अनन्या राय " * 18,
        "ศิริพรอนันต์" * 16,
        "W" * 300,
    ],
)
async def test_long_names_titles_and_addresses_stay_on_the_one_page(
    documents: TypstDocuments, name: str
) -> None:
    pdf = await documents.certificate(
        certificate(
            student=name,
            course=name,
            title=name[:200],
            issuer=name[:100],
            number="W" * 40,
            verify_url="https://school.example/" + "a" * 270,
        )
    )
    assert set(letters_of(name)) <= set(letters_of(text_of(pdf)))
    # Text is centred: what is too wide begins left of the frame, what is too high lies above it.
    assert all(70 < x < 772 and 50 < y < 540 for x, y in starts_of_text(pdf))


async def test_values_are_data_and_never_source(documents: TypstDocuments) -> None:
    name = '#panic("x") $x$ *b* _i_ `c` \\u{41} <l> @r // c "q" #{1 + 1} ]'
    assert name in text_of(await documents.certificate(certificate(student=name)))


async def test_a_name_cannot_turn_the_words_beside_it(documents: TypstDocuments) -> None:
    pdf = await documents.certificate(certificate(student="A\u202enn\x07 \u2066Lee\n\n"))
    assert "Ann Lee" in text_of(pdf)


async def test_a_letter_that_no_font_has_is_named(documents: TypstDocuments) -> None:
    with pytest.raises(
        DocumentError, match=r"U\+13000 EGYPTIAN HIEROGLYPH A001\) \(in the student\)"
    ) as caught:
        await documents.certificate(certificate(student="Ann \U00013000"))
    assert isinstance(caught.value, Discard)
    assert "fonts=" in str(caught.value)
    with pytest.raises(DocumentError, match=r"U\+E000"):
        await documents.certificate(certificate(student="Ann \ue000"))


async def test_a_missing_emoji_is_left_out_and_logged(
    documents: TypstDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pdf = await documents.certificate(certificate(course="🚀 Rockets 👩‍🚀 and می‌خواهم"))
    words = text_of(pdf)
    assert "Rockets and" in words
    assert "🚀" not in words
    assert "U+1F680 ROCKET" in caplog.text
    assert "Rockets" not in caplog.text
    with pytest.raises(DocumentError, match="ROCKET"):
        await documents.certificate(certificate(student="🚀"))


async def test_random_text_of_any_letters_is_set_or_refused_clearly(documents: TypstDocuments) -> None:
    rng = random.Random(26)
    made, refusals = 0, list[str]()
    for _ in range(60):
        block = rng.choice([0x20, 0x300, 0x590, 0x600, 0x900, 0xE00, 0x2000, 0x4E00, 0xAC00, 0xD800, 0x1F300])
        name = "x" + "".join(chr(block + rng.randrange(0x100)) for _ in range(rng.randrange(1, 60)))
        try:
            pdf = await documents.certificate(certificate(student=name))
        except DocumentError as error:
            refusals.append(str(error))
        else:
            made += 1
            assert len(PdfReader(BytesIO(pdf)).pages) == 1
    assert made > 10
    assert all("no font has" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"student": ""}, "student"),
        ({"student": " \n"}, "student"),
        ({"course": ""}, "course"),
        ({"number": ""}, "number"),
        ({"number": "1" * 41}, "number"),
        ({"student": "a" * 301}, "301"),
        ({"verify_url": "javascript:alert(1)"}, "verify_url"),
        ({"verify_url": "https://school.example/a b"}, "verify_url"),
        ({"language": "English, please"}, "language"),
    ],
)
def test_values_from_which_no_certificate_can_be_made(changes: dict[str, str], about: str) -> None:
    with pytest.raises(DocumentError, match=about):
        certificate(**changes)


async def test_a_name_of_nothing_but_controls_is_refused(documents: TypstDocuments) -> None:
    with pytest.raises(DocumentError, match="student"):
        await documents.certificate(certificate(student="\u202e\x07"))


def test_a_font_folder_that_is_not_there_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="fonts"):
        TypstDocuments(fonts=[tmp_path / "fonts"])


def test_the_kit_needs_no_typesetter_until_it_is_used() -> None:
    program = (
        "import sys; from errands.kits import documents; from errands.kits.documents import fake;"
        "documents.kit(fake.FakeDocuments()); sys.exit('typst' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
