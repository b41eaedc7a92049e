"""Documents for tests: no fonts, no typesetting."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

from errands.kits.documents.certificate import Certificate
from errands.kits.documents.gathering import gathered
from errands.kits.documents.provider import Document, Documents
from errands.kits.documents.report import Report
from errands.kits.documents.transcript import Transcript

_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class FakeDocuments(Documents):
    """Remembers what was asked for in `certificates`, `reports` and `transcripts`; rows are lists there.

    Its files begin like a PDF and hold the values; its previews are a PNG of one dot.
    """

    def __init__(self) -> None:
        self.certificates: list[Certificate] = []
        self.reports: list[Report] = []
        self.transcripts: list[Transcript] = []

    async def certificate(self, certificate: Certificate) -> bytes:
        self.certificates.append(certificate)
        return _file(certificate)

    async def report(self, report: Report) -> bytes:
        self.reports.append(await gathered(report, 50_000))
        return _file(self.reports[-1])

    async def transcript(self, transcript: Transcript) -> bytes:
        self.transcripts.append(transcript)
        return _file(transcript)

    async def preview(self, document: bytes | Document, *, width: int = 800, height: int = 1200) -> bytes:
        return _DOT


def _file(document: Document) -> bytes:
    values = json.dumps(asdict(document), default=str, ensure_ascii=False)
    return f"%PDF-1.7\n% {values}\n%%EOF\n".encode()
