"""What every maker of documents does alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date

import pytest

from errands.kits.documents import Certificate, DocumentError, Documents, TypstDocuments
from errands.kits.documents.fake import FakeDocuments

CERTIFICATE = Certificate(
    course="Botany",
    student="Ana María محمد अनन्या 王小明",
    completed_on=date(2026, 3, 5),
    number="7F3K-QQ2M",
    verify_url="https://school.example/certificates/7F3K-QQ2M",
)


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
