"""What can be done with enrollments. All SQL of this subject is here."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard
from errands.core import clock
from school.courses.tables import Course, Lesson
from school.database import changed, insert_missing
from school.enrollments.tables import Enrollment, LessonCompletion


@dataclass(frozen=True, slots=True)
class Recount:
    """An enrollment's whole percentage, and whether this very recount completed the course."""

    progress: int
    completed: bool


async def enroll(session: AsyncSession, user_id: int, course_id: int, run_id: str) -> tuple[Enrollment, bool]:
    """The user's enrollment in the course, and whether it is new. Of two at the same moment, one makes it."""
    made = await insert_missing(
        session, Enrollment, user_id=user_id, course_id=course_id, progress=0, enrolled_at=clock.now(),
        run_id=run_id,
    )  # fmt: skip
    enrollment = await of(session, user_id, course_id)
    if enrollment is None:
        raise LookupError(f"the enrollment of user {user_id} in course {course_id} was removed meanwhile")
    return enrollment, made


async def of(session: AsyncSession, user_id: int, course_id: int) -> Enrollment | None:
    """The user's enrollment in the course."""
    return await session.scalar(
        select(Enrollment).where(Enrollment.user_id == user_id, Enrollment.course_id == course_id)
    )


async def course_of_lesson(session: AsyncSession, lesson_id: int) -> int | None:
    """The id of the course that the lesson belongs to."""
    return await session.scalar(select(Lesson.course_id).where(Lesson.id == lesson_id))


async def complete_lesson(session: AsyncSession, enrollment_id: int, lesson_id: int) -> bool:
    """Note that the lesson is done; False if it was noted before."""
    return await insert_missing(
        session, LessonCompletion, enrollment_id=enrollment_id, lesson_id=lesson_id, completed_at=clock.now()
    )


async def recount(session: AsyncSession, enrollment_id: int) -> Recount:
    """Count lessons done over all lessons, in the database; at 100 % set `completed_at`, once.

    The row is locked first. On PostgreSQL a count that had to wait for another's would else still see the
    lessons as they were before it, and could write an older percentage over a newer one. The second update
    changes a row for one caller ever: it is the one who starts what follows on completion.

    Raises:
        Discard: there is no such enrollment.
    """
    one = Enrollment.id == enrollment_id
    if await session.scalar(select(Enrollment.id).where(one).with_for_update()) is None:
        raise Discard(f"there is no enrollment {enrollment_id}")
    lessons = select(func.count(Lesson.id)).where(Lesson.course_id == Enrollment.course_id).scalar_subquery()
    done = (
        select(func.count(LessonCompletion.lesson_id))
        .join(Lesson, Lesson.id == LessonCompletion.lesson_id)
        .where(LessonCompletion.enrollment_id == Enrollment.id, Lesson.course_id == Enrollment.course_id)
        .scalar_subquery()
    )
    progress = await session.scalar(
        update(Enrollment)
        .where(one)
        .values(progress=case((lessons == 0, 0), else_=100 * done // lessons))
        .returning(Enrollment.progress)
        .execution_options(synchronize_session=False)
    )
    finished = await session.execute(
        update(Enrollment)
        .where(one, Enrollment.completed_at.is_(None), Enrollment.progress == 100)
        .values(completed_at=clock.now())
        .execution_options(synchronize_session=False)
    )
    return Recount(progress or 0, changed(finished) == 1)


async def get(session: AsyncSession, enrollment_id: int) -> tuple[Enrollment, Course] | None:
    """The enrollment and its course."""
    query = (
        select(Enrollment, Course)
        .join(Course, Course.id == Enrollment.course_id)
        .where(Enrollment.id == enrollment_id)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row[0], row[1])
