"""What can be done with certificates. All SQL of this subject is here."""

from __future__ import annotations

from datetime import UTC
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard
from errands.core import clock
from errands.kits.storage import key_for
from school.certificates.numbers import new_number
from school.certificates.tables import Certificate
from school.courses.tables import Course
from school.database import changed, insert_missing
from school.enrollments.tables import Enrollment
from school.people.tables import User


class Drawn(NamedTuple):
    """A certificate with whom and what it is for."""

    certificate: Certificate
    user: User
    course: Course


async def draw(session: AsyncSession, enrollment_id: int) -> Drawn:
    """The enrollment's certificate, with the number that was drawn for it first, whoever asks and how often.

    Raises:
        Discard: there is no such enrollment, or it is not complete; no repetition would change that.
    """
    query = (
        select(Enrollment, User, Course)
        .join(User, User.id == Enrollment.user_id)
        .join(Course, Course.id == Enrollment.course_id)
        .where(Enrollment.id == enrollment_id)
    )
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise Discard(f"there is no enrollment {enrollment_id}")
    enrollment, user, course = row
    if enrollment.completed_at is None:
        raise Discard(f"enrollment {enrollment_id} is not complete: {enrollment.progress} % of its lessons")
    certificate = await of_enrollment(session, enrollment_id)
    if certificate is None:
        number = new_number()
        await insert_missing(
            session, Certificate, enrollment_id=enrollment_id, number=number, student=user.full_name,
            course=course.title, completed_on=enrollment.completed_at.astimezone(UTC).date(),
            file_key=key_for("certificates", number, ".pdf"), created_at=clock.now(),
        )  # fmt: skip
        certificate = await of_enrollment(session, enrollment_id)
    if certificate is None:
        raise LookupError(f"the certificate of enrollment {enrollment_id} was removed meanwhile")
    return Drawn(certificate, user, course)


async def issue(session: AsyncSession, certificate: Certificate) -> bool:
    """Say that the file is stored; True for the one caller, ever, who is first."""
    issued = await session.execute(
        update(Certificate)
        .where(Certificate.id == certificate.id, Certificate.issued_at.is_(None))
        .values(issued_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    return changed(issued) == 1


async def of_enrollment(session: AsyncSession, enrollment_id: int) -> Certificate | None:
    """The enrollment's certificate, issued or not."""
    return await session.scalar(select(Certificate).where(Certificate.enrollment_id == enrollment_id))


async def issued(session: AsyncSession, number: str) -> tuple[Certificate, int] | None:
    """The certificate of this number, once it is issued, and the id of its user."""
    query = (
        select(Certificate, Enrollment.user_id)
        .join(Enrollment, Enrollment.id == Certificate.enrollment_id)
        .where(Certificate.number == number, Certificate.issued_at.is_not(None))
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row[0], row[1])


async def revoke(session: AsyncSession, number: str) -> bool:
    """Let the certificate hold no more; False if there is none of this number."""
    revoked = await session.execute(
        update(Certificate).where(Certificate.number == number).values(revoked_at=clock.now())
    )
    return changed(revoked) == 1
