"""Transcripts: terms, marks, and where they can be verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader
from tests.pdfs import claims_of, names_of_tags, pages_of, text_of

from errands.kits.documents import DocumentError, Mark, Term, Transcript, TypstDocuments

URL = "https://school.example/transcripts/7F3K-QQ2M"
TRANSCRIPT = Transcript(
    student="Ana María محمد 王小明",
    particulars={"Student number": 20260117, "Born on": date(2004, 2, 29)},
    terms=[
        Term("Autumn 2024", [Mark("Botany", "A", 5, "BIO-1"), Mark("Latin", Decimal("1.7"))], "Average 1.35"),
        Term("Spring 2025", []),
    ],
    summary={"Average": 1.35, "Credits": 5},
    issued_on=date(2026, 3, 5),
    number="7F3K-QQ2M",
    verify_url=URL,
    issuer="Riverside School",
    legend="1 is the best mark.\n4 is the last that passes.",
    signed_by="Dr. Haddad, Registrar",
)


@pytest.fixture(scope="module")
def documents() -> Iterator[TypstDocuments]:
    typeset = TypstDocuments()
    yield typeset
    typeset.close()


async def test_the_page_says_it_all(documents: TypstDocuments) -> None:
    pdf = await documents.transcript(TRANSCRIPT)
    text = text_of(pdf)
    for words in (
        "Riverside School Transcript of Records",
        "Student number 20260117 Born on 2004-02-29",
        "Autumn 2024 Code Course Credits Grade BIO-1 Botany 5 A Latin 1.7 Average 1.35",
        "Spring 2025 Course Grade No marks",
        "Average 1.35 Credits 5 How to read the grades 1 is the best mark. 4 is the last that passes.",
        "Issued on March 5, 2026",
        "Document No: 7F3K-QQ2M",
        URL,
        "Dr. Haddad, Registrar",
    ):
        assert words in text
    reader = PdfReader(BytesIO(pdf))
    assert reader.metadata is not None
    assert reader.metadata.title == "Transcript of Records: Ana María محمد 王小明"
    assert claims_of(pdf) == {"PDF/A-2b", "PDF/UA-1"}
    assert names_of_tags(pdf).count("/Table") == 2
    assert {link.get_object()["/A"]["/URI"] for link in reader.pages[0]["/Annots"]} == {URL}


async def test_many_terms_go_over_pages_and_none_is_torn(documents: TypstDocuments) -> None:
    terms = [
        Term(f"Term {n}", [Mark(f"Course {n}-{m}", "A") for m in range(6)], f"Note {n}") for n in range(20)
    ]
    pages = pages_of(await documents.transcript(replace(TRANSCRIPT, terms=terms)))
    assert len(pages) > 3
    for n in range(20):
        (page,) = (page for page in pages if f"Course {n}-0 A" in page)
        assert all(f"Course {n}-{m} A" in page for m in range(6))
        assert f"Note {n}" in page
    assert all("Transcript of Records · Ana María" in page for page in pages[1:])


async def test_in_german_and_in_a_language_that_runs_to_the_left(documents: TypstDocuments) -> None:
    german = text_of(await documents.transcript(replace(TRANSCRIPT, language="de", title="Zeugnis")))
    assert "Kürzel Kurs Punkte Note" in german
    assert "Ausgestellt am 5. März 2026" in german
    assert await documents.transcript(replace(TRANSCRIPT, language="ar"))


async def test_long_values_and_hostile_ones(documents: TypstDocuments) -> None:
    hostile = '#panic("x") ' + "W" * 280
    pdf = await documents.transcript(
        replace(
            TRANSCRIPT, student=hostile, number="W" * 40, signed_by=hostile, issuer=hostile, legend=hostile,
            particulars={hostile: hostile}, summary={hostile: hostile},
            terms=[Term(hostile, [Mark(hostile, hostile, 1, hostile)] * 3, hostile)],
        )
    )  # fmt: skip
    assert text_of(pdf).replace(" ", "").count('#panic("x")') >= 10


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"student": " "}, "student"),
        ({"student": "a" * 301}, "301"),
        ({"number": ""}, "number"),
        ({"verify_url": "javascript:alert(1)"}, "verify_url"),
        ({"language": "English, please"}, "language"),
        ({"terms": [Term("x", [])] * 101}, "100 terms"),
    ],
)
def test_values_from_which_no_transcript_can_be_made(changes: dict[str, Any], about: str) -> None:
    with pytest.raises(DocumentError, match=about):
        replace(TRANSCRIPT, **changes)


async def test_a_name_of_nothing_but_controls_is_refused(documents: TypstDocuments) -> None:
    with pytest.raises(DocumentError, match="student"):
        await documents.transcript(replace(TRANSCRIPT, student="\u202e\x07"))
