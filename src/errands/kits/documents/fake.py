"""Documents for tests: no fonts, no typesetting."""

from __future__ import annotations

import json
from dataclasses import asdict

from errands.kits.documents.provider import Certificate, Documents


class FakeDocuments(Documents):
    """Remembers what was asked for in `certificates`; its files begin like a PDF and hold the values."""

    def __init__(self) -> None:
        self.certificates: list[Certificate] = []

    async def certificate(self, certificate: Certificate) -> bytes:
        self.certificates.append(certificate)
        values = json.dumps(asdict(certificate), default=str, ensure_ascii=False)
        return f"%PDF-1.7\n% {values}\n%%EOF\n".encode()
