"""Counting how a user is getting on. All SQL of this subject is here."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from school.certificates.tables import Certificate
from school.enrollments.tables import Enrollment, LessonCompletion
from school.statistics.tables import UserStats


async def count(session: AsyncSession, user_id: int) -> UserStats:
    """Count anew and keep it; a second count replaces the first. Not kept before the session commits."""
    own = Enrollment.user_id == user_id
    enrollments, completed, average = (
        await session.execute(
            select(func.count(), func.count(Enrollment.completed_at), func.avg(Enrollment.progress)).where(
                own
            )
        )
    ).one()
    lessons = await session.scalar(
        select(func.count()).select_from(LessonCompletion).join(Enrollment).where(own)
    )
    certificates = await session.scalar(
        select(func.count())
        .select_from(Certificate)
        .join(Enrollment)
        .where(own, Certificate.issued_at.is_not(None), Certificate.revoked_at.is_(None))
    )
    return await session.merge(
        UserStats(
            user_id=user_id,
            enrollments=enrollments,
            courses_completed=completed,
            lessons_completed=lessons or 0,
            certificates=certificates or 0,
            average_progress=int(average or 0),
            updated_at=clock.now(),
        )
    )


async def get(session: AsyncSession, user_id: int) -> UserStats | None:
    """What was counted last."""
    return await session.get(UserStats, user_id)


def shown(stats: UserStats) -> dict[str, object]:
    """The counts as the API and the task tell them."""
    names = ("enrollments", "courses_completed", "lessons_completed", "certificates", "average_progress")
    return {"user_id": stats.user_id, **{name: getattr(stats, name) for name in names}}
