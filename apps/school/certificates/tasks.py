"""Making certificates and mailing them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Retry, Run
from errands.kits.documents import Certificate as Words
from errands.kits.documents import Documents
from errands.kits.mail import Attachment, Mailer, Templates
from errands.kits.storage import Storage
from school import dispatch, mail
from school.app import SCHOOL_NAME, app
from school.certificates import links, numbers, service
from school.database import ReadingSession
from school.people.tables import User


@app.task(name="generate_certificate", queue="certificates", retry=Retry(3, first=300, most=1200))
async def generate_certificate(
    enrollment_id: int, *, run: Run, session: AsyncSession, documents: Documents, storage: Storage
) -> dict[str, Any]:
    """Draw a number, make the PDF, store it, record it, and tell; what is done already is not done again.

    Each step leaves something that the next attempt finds: the number is kept before the file is made, the
    file has one name, and the record, the mail and the events are one transaction.
    """
    certificate, user, course = await service.draw(session, enrollment_id)
    await session.commit()
    if certificate.issued_at is None or not await storage.exists(certificate.file_key):
        words = Words(
            course=certificate.course,
            student=certificate.student,
            completed_on=certificate.completed_on,
            number=certificate.number,
            verify_url=links.page(certificate),
            issuer=SCHOOL_NAME,
        )
        pdf = await documents.certificate(words)
        await storage.put(pdf, content_type="application/pdf", key=certificate.file_key)
    url = links.download(certificate)
    if await service.issue(session, certificate):
        dispatch.certificate_issued(
            session, run, certificate_id=certificate.id, url=url, user_id=user.id, email=user.email,
            course_id=course.id, course=certificate.course,
        )  # fmt: skip
    return {"certificate_id": certificate.id, "number": certificate.number, "url": url}


@app.task(name="send_certificate_email", queue="emails", retry=mail.RETRY)
async def send_certificate_email(
    user_id: int, email: str, certificate_url: str, course_name: str, *, run: Run, session: ReadingSession,
    mailer: Mailer, templates: Templates, storage: Storage,
) -> str:  # fmt: skip
    """Mail the link, and the file too if it is to a certificate of this user; returns the Message-ID."""
    user = await session.get(User, user_id)
    name = user.full_name if user else ""
    number = numbers.parse(urlsplit(certificate_url).path.rpartition("/")[2].removesuffix(".pdf"))
    found = await service.issued(session, number) if number else None
    attachments: tuple[Attachment, ...] = ()
    if found and found[1] == user_id:
        certificate = found[0]
        data = await storage.read(certificate.file_key)
        attachments = (Attachment(f"{certificate.number}.pdf", "application/pdf", data),)
    return await mail.send(
        "certificate", email, run=run, mailer=mailer, templates=templates, attachments=attachments,
        name=name, course=course_name, link=certificate_url,
    )  # fmt: skip
