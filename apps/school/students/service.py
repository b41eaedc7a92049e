"""What is asked about students. All SQL of this subject is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from errands.kits.tables import Update
from school.certificates.tables import Certificate
from school.courses.tables import Course, Lesson
from school.enrollments.tables import Enrollment, LessonCompletion
from school.people.passwords import NONE_YET
from school.people.tables import Role, User

_STUDENT = User.role == Role.STUDENT


class Taken(NamedTuple):
    """A course that a student takes."""

    course: str
    progress: int
    enrolled_at: datetime
    completed_at: datetime | None
    lessons_done: int
    lessons: int
    certificate: str | None


class CourseFigures(NamedTuple):
    """How a course is getting on."""

    course: str
    enrollments: int
    completed: int
    average_progress: float


async def get(session: AsyncSession, student_id: int) -> User | None:
    """The student."""
    return await session.scalar(select(User).where(User.id == student_id, _STUDENT))


async def courses_of(session: AsyncSession, student_id: int) -> list[Taken]:
    """The courses that a student takes, the newest last."""
    done = (
        select(func.count())
        .select_from(LessonCompletion)
        .where(LessonCompletion.enrollment_id == Enrollment.id)
        .scalar_subquery()
    )
    lessons = select(func.count(Lesson.id)).where(Lesson.course_id == Course.id).scalar_subquery()
    query = (
        select(
            Course.title, Enrollment.progress, Enrollment.enrolled_at, Enrollment.completed_at, done, lessons,
            Certificate.number,
        )
        .select_from(Enrollment)
        .join(Course, Course.id == Enrollment.course_id)
        .outerjoin(
            Certificate,
            (Certificate.enrollment_id == Enrollment.id)
            & Certificate.issued_at.is_not(None)
            & Certificate.revoked_at.is_(None),
        )
        .where(Enrollment.user_id == student_id)
        .order_by(Enrollment.enrolled_at, Enrollment.id)
    )  # fmt: skip
    return [Taken(*row) for row in await session.execute(query)]


async def course_ids(session: AsyncSession) -> Sequence[int]:
    """All courses, in order."""
    return (await session.scalars(select(Course.id).order_by(Course.title, Course.id))).all()


async def figures_of(session: AsyncSession, course_id: int) -> CourseFigures | None:
    """How one course is getting on."""
    query = (
        select(
            Course.title, func.count(Enrollment.id), func.count(Enrollment.completed_at),
            func.coalesce(func.avg(Enrollment.progress), 0),
        )
        .select_from(Course)
        .outerjoin(Enrollment)
        .where(Course.id == course_id)
        .group_by(Course.id, Course.title)
    )  # fmt: skip
    row = (await session.execute(query)).one_or_none()
    return None if row is None else CourseFigures(row[0], row[1], row[2], float(row[3]))


def listed(filters: Mapping[str, Any]) -> Select[Any]:
    """The rows of the students' export: `is_active` leaves out the others, without it there are all."""
    query: Any = (
        select(
            User.id, User.full_name, User.email, User.is_active, User.created_at,
            func.count(Enrollment.id).label("enrollments"),
            func.count(Enrollment.completed_at).label("completed"),
        )
        .outerjoin(Enrollment, Enrollment.user_id == User.id)
        .where(_STUDENT)
        .group_by(User.id)
        .order_by(User.id)
    )  # fmt: skip
    active = filters.get("is_active")
    found: Select[Any] = query if active is None else query.where(User.is_active == active)
    return found


class StudentsTarget:
    """What an import of students writes to: users of that role, known by their address.

    Who is new has no password, and sets one by the link for a forgotten one. The address of somebody who is
    no student is refused by the database, since it is taken.
    """

    async def count(self, session: AsyncSession) -> int:
        """As `tables.Target`."""
        return await session.scalar(select(func.count()).select_from(User).where(_STUDENT)) or 0

    async def existing(
        self, session: AsyncSession, keys: Sequence[tuple[Any, ...]]
    ) -> Mapping[tuple[Any, ...], Mapping[str, Any]]:
        """As `tables.Target`."""
        query = select(User.email_key, User.full_name, User.is_active).where(
            User.email_key.in_([key[0] for key in keys]), _STUDENT
        )
        return {
            (email,): {"email": email, "full_name": name, "is_active": active}
            for email, name, active in await session.execute(query)
        }

    async def apply(
        self, session: AsyncSession, creates: Sequence[Mapping[str, Any]], updates: Sequence[Update]
    ) -> None:
        """As `tables.Target`."""
        if creates:
            new = {"password_hash": NONE_YET, "role": Role.STUDENT.value, "created_at": clock.now()}
            await session.execute(
                insert(User), [{**row, "email_key": row["email"], **new} for row in creates]
            )
        for fields in {tuple(sorted(one.values)) for one in updates}:
            changes = [one for one in updates if tuple(sorted(one.values)) == fields]
            statement = (
                update(User.__table__)  # type: ignore[arg-type]
                .where(User.email_key == bindparam("known_by"), _STUDENT)
                .values({field: bindparam(f"new_{field}") for field in fields})
            )
            values = [
                {"known_by": one.key[0], **{f"new_{field}": one.values[field] for field in fields}}
                for one in changes
            ]
            await (await session.connection()).execute(statement, values)
