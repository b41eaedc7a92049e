"""Counting what happened. All SQL of this subject is here."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from errands.core import clock
from school.analytics.tables import AnalyticsEvent, DailyAnalytics
from school.certificates.tables import Certificate
from school.database import insert_missing
from school.enrollments.tables import Enrollment, LessonCompletion
from school.people.tables import User

_COUNTED: dict[str, InstrumentedAttribute[Any]] = {
    "registrations": User.created_at,
    "enrollments": Enrollment.enrolled_at,
    "lessons_completed": LessonCompletion.completed_at,
    "courses_completed": Enrollment.completed_at,
    "certificates_issued": Certificate.issued_at,
}


async def note(session: AsyncSession, kind: str, enrollment_id: int, *, at: datetime) -> bool:
    """Note that something happened; False if it was noted before."""
    return await insert_missing(session, AnalyticsEvent, kind=kind, enrollment_id=enrollment_id, at=at)


async def count_day(session: AsyncSession, day: date) -> dict[str, int]:
    """Count what happened on `day` (UTC) and keep it; a second count replaces the first."""
    start = datetime.combine(day, time(), UTC)
    counts = {
        name: await session.scalar(
            select(func.count()).where(moment >= start, moment < start + timedelta(days=1))
        )
        or 0
        for name, moment in _COUNTED.items()
    }
    await session.merge(DailyAnalytics(day=day, made_at=clock.now(), **counts))
    return counts
