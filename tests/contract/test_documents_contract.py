"""What every maker of documents does alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import date

import pytest

from errands.kits.documents import (
    Certificate,
    DocumentError,
    Documents,
    Facts,
    Mark,
    Report,
    Table,
    Term,
    Transcript,
    TypstDocuments,
)
from errands.kits.documents.fake import FakeDocuments

CERTIFICATE = Certificate(
    course="Botany",
    student="Ana María محمد अनन्या 王小明",
    completed_on=date(2026, 3, 5),
    number="7F3K-QQ2M",
    verify_url="https://school.example/certificates/7F3K-QQ2M",
)
TRANSCRIPT = Transcript(
    student="Ana María",
    terms=[Term("Spring", [Mark("Botany", "A")])],
    issued_on=date(2026, 3, 5),
    number="7F3K-QQ2M",
    verify_url="https://school.example/transcripts/7F3K-QQ2M",
)


def report(rows: Iterable[tuple[str, int]]) -> Report:
    return Report(title="Grades", sections=[Facts({"Class": "4b"}), Table(["Student", "Mark"], rows)])


@pytest.fixture(params=["typst", "fake"])
async def documents(request: pytest.FixtureRequest) -> AsyncIterator[Documents]:
    if request.param == "fake":
        yield FakeDocuments()
        return
    typeset = TypstDocuments()
    yield typeset
    await typeset.aclose()


async def test_a_certificate_is_a_pdf(documents: Documents) -> None:
    pdf = await documents.certificate(CERTIFICATE)
    assert pdf.startswith(b"%PDF-1.7")
    assert pdf.rstrip().endswith(b"%%EOF")


async def test_a_second_run_makes_the_same_bytes(documents: Documents) -> None:
    assert await documents.certificate(CERTIFICATE) == await documents.certificate(CERTIFICATE)


async def test_many_at_once_each_get_their_own(documents: Documents) -> None:
    wanted = [replace(CERTIFICATE, number=f"N-{number}") for number in range(8)]
    made = await asyncio.gather(*map(documents.certificate, wanted))
    assert len(set(made)) == 8
    assert made == [await documents.certificate(certificate) for certificate in wanted]


async def test_a_certificate_that_was_refused_does_no_harm_to_the_next(documents: Documents) -> None:
    for number in range(3):
        with pytest.raises(DocumentError):
            await documents.certificate(replace(CERTIFICATE, student=" \t " * number))
    assert await documents.certificate(CERTIFICATE)


async def test_a_report_and_a_transcript_are_pdfs_with_the_same_bytes_each_time(documents: Documents) -> None:
    for made in (
        [await documents.report(report([("Ana", 1)])) for _ in range(2)],
        [await documents.transcript(TRANSCRIPT) for _ in range(2)],
    ):
        assert made[0] == made[1]
        assert made[0].startswith(b"%PDF-1.7")
        assert made[0].rstrip().endswith(b"%%EOF")


async def test_rows_are_read_from_any_iterable(documents: Documents) -> None:
    async def streamed() -> AsyncIterator[tuple[str, int]]:
        for number in range(3):
            yield f"Student {number}", number

    listed = [(f"Student {number}", number) for number in range(3)]
    made = [await documents.report(report(rows)) for rows in (listed, iter(listed), streamed())]  # type: ignore[arg-type]
    assert made[0] == made[1] == made[2]


async def test_a_preview_is_a_picture(documents: Documents) -> None:
    pdf = await documents.transcript(TRANSCRIPT)
    for document in (pdf, CERTIFICATE, TRANSCRIPT, report([("Ana", 1)])):
        assert (await documents.preview(document)).startswith(b"\x89PNG")


async def test_endless_rows_are_refused(documents: Documents) -> None:
    with pytest.raises(DocumentError, match="cells"):
        await documents.report(report(("Ana", number) for number in iter(int, 1)))
