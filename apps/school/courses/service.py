"""What can be done with courses. All SQL of this subject is here."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from errands.core import clock
from school.cache import Cache
from school.courses.tables import Course, Lesson
from school.enrollments.tables import Enrollment

RATE_SECONDS = 3600


async def make(session: AsyncSession, instructor_id: int, title: str, lessons: Sequence[str]) -> Course:
    """A new course with its lessons, in this order."""
    course = Course(
        title=title,
        instructor_id=instructor_id,
        created_at=clock.now(),
        lessons=[Lesson(position=number, title=name) for number, name in enumerate(lessons, start=1)],
    )
    session.add(course)
    await session.flush()
    return course


async def get(session: AsyncSession, course_id: int) -> Course | None:
    """The course with its lessons."""
    return await session.get(Course, course_id, options=[selectinload(Course.lessons)])


async def page(session: AsyncSession, *, limit: int, offset: int) -> Sequence[Course]:
    """Courses with their lessons, the oldest first."""
    query = select(Course).options(selectinload(Course.lessons)).order_by(Course.id)
    return (await session.scalars(query.limit(limit).offset(offset))).all()


async def completion_rate(session: AsyncSession, course_id: int) -> float:
    """The share of enrollments that are completed, in percent to two places; 0 where there are none."""
    query = select(func.count(Enrollment.id), func.count(Enrollment.completed_at)).where(
        Enrollment.course_id == course_id
    )
    enrolled, completed = (await session.execute(query)).one()
    return round(100 * completed / enrolled, 2) if enrolled else 0.0


async def refresh_rate(session: AsyncSession, cache: Cache, course_id: int) -> float:
    """Work the completion rate out, and keep it for an hour."""
    rate = await completion_rate(session, course_id)
    await cache.set(_rate_key(course_id), str(rate), RATE_SECONDS)
    return rate


async def cached_rate(session: AsyncSession, cache: Cache, course_id: int) -> float:
    """The completion rate, at most an hour old."""
    kept = await cache.get(_rate_key(course_id))
    return float(kept) if kept is not None else await refresh_rate(session, cache, course_id)


def _rate_key(course_id: int) -> str:
    return f"completion-rate:{course_id}"
