"""Progress, and what follows on the last lesson."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Retry, Run
from errands.kits.mail import Mailer, Templates
from school import dispatch, mail
from school.analytics import service as analytics
from school.app import app
from school.courses import service as courses
from school.database import ReadingSession
from school.enrollments import service
from school.people.tables import User

RETRY = Retry(3, first=5, most=60)


@app.task(name="update_enrollment_progress", queue="progress", retry=RETRY)
async def update_enrollment_progress(
    enrollment_id: int, lesson_id: int, *, run: Run, session: AsyncSession
) -> dict[str, Any]:
    """Recount lessons done over all lessons; at 100 % start the completion, in the same transaction.

    `lesson_id` is noted as done if the caller has not done so.
    """
    found = await service.get(session, enrollment_id)
    if found is None:
        raise Discard(f"there is no enrollment {enrollment_id}")
    if await service.course_of_lesson(session, lesson_id) != found[0].course_id:
        raise Discard(f"lesson {lesson_id} is not part of the course of enrollment {enrollment_id}")
    await service.complete_lesson(session, enrollment_id, lesson_id)
    count = await service.recount(session, enrollment_id)
    if count.completed:
        dispatch.course_completed(session, run, enrollment_id)
    return {"enrollment_id": enrollment_id, "progress_percentage": count.progress}


@app.task(name="trigger_course_completion", queue="progress", retry=RETRY)
async def trigger_course_completion(enrollment_id: int, *, run: Run, session: AsyncSession) -> None:
    """Certificate, congratulation and analytics for a course that was completed."""
    found = await service.get(session, enrollment_id)
    if found is None:
        raise Discard(f"there is no enrollment {enrollment_id}")
    enrollment, course = found
    if enrollment.completed_at is None:
        raise Discard(f"enrollment {enrollment_id} is not complete: {enrollment.progress} % of its lessons")
    await analytics.note(session, "course_completed", enrollment_id, at=enrollment.completed_at)
    dispatch.completion(
        session, run, enrollment_id=enrollment_id, user_id=enrollment.user_id, course_id=course.id
    )


@app.task(name="send_enrollment_confirmation", queue="emails", retry=mail.RETRY)
async def send_enrollment_confirmation(
    user_id: int, email: str, course_name: str, *, run: Run, session: ReadingSession, mailer: Mailer,
    templates: Templates,
) -> str:  # fmt: skip
    """Tell somebody that they are enrolled; returns the mail's Message-ID."""
    user = await session.get(User, user_id)
    name = user.full_name if user else ""
    return await mail.send(
        "enrollment", email, run=run, mailer=mailer, templates=templates, name=name, course=course_name
    )


@app.task(name="send_course_completion_email", queue="emails", retry=mail.RETRY)
async def send_course_completion_email(
    user_id: int, course_id: int, *, run: Run, session: ReadingSession, mailer: Mailer, templates: Templates
) -> str:
    """Congratulate; returns the mail's Message-ID."""
    user, course = await session.get(User, user_id), await courses.get(session, course_id)
    if user is None or course is None:
        raise Discard(f"there is no user {user_id}" if user is None else f"there is no course {course_id}")
    return await mail.send(
        "completion", user.email, run=run, mailer=mailer, templates=templates, name=user.full_name,
        course=course.title,
    )  # fmt: skip
