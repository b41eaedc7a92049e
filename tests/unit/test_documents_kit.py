"""The two kits in an application: a task asks for documents and storage by type."""

from __future__ import annotations

import base64
from datetime import date
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from errands import Errands, Settings
from errands.kits import documents, storage
from errands.kits.documents import Certificate, Documents
from errands.kits.storage import Storage

KEY = "one:" + base64.b64encode(b"s" * 32).decode()


def test_a_task_makes_a_certificate_and_stores_it_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, inline=True, secret_keys=KEY, public_url="https://school.example")
    app = Errands("school", settings=settings)
    app.use(documents.kit())
    app.use(storage.kit())

    @app.task(name="make_certificate", queue="certificates")
    async def make_certificate(number: str, *, documents: Documents, files: Storage) -> str:
        pdf = await documents.certificate(
            Certificate(
                course="Botany",
                student="Ann",
                completed_on=date(2026, 3, 5),
                number=number,
                verify_url=f"https://school.example/certificates/{number}",
            )
        )
        key = files.key_for("certificates", number, ".pdf")
        await files.put(pdf, content_type="application/pdf", key=key)
        return await files.link(key, filename="certificate.pdf", expires_in=60)

    links = [urlsplit(make_certificate.delay("N-1").get()) for _ in range(2)]
    assert len({link.path for link in links}) == 1
    link = storage.link_signer(settings).check(
        links[0].path.removeprefix("/files/"), dict(parse_qsl(links[0].query))
    )
    (pdf,) = (settings.storage_path or tmp_path).rglob("*.pdf")
    assert pdf.read_bytes().startswith(b"%PDF-1.7")
    assert pdf.name.startswith(link.key.removeprefix("certificates/").removesuffix(".pdf"))
