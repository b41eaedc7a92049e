"""Enrolling, finishing lessons, seeing how far one is."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException

from school import dispatch
from school.access import Reading, SignedIn, Student, Writing
from school.certificates import links
from school.certificates import service as certificates
from school.courses import service as courses
from school.enrollments import service
from school.fields import Id

router = APIRouter(tags=["enrollments"])


@router.post("/courses/{course_id}/enroll", status_code=202)
async def enroll(course_id: Id, user: Student, session: Writing) -> dict[str, Any]:
    """Take a course. Asked twice, it is one enrollment, one mail and one run."""
    course = await courses.get(session, course_id)
    if course is None:
        raise HTTPException(404, "There is no such course.")
    run_id = dispatch.new_id()
    enrollment, new = await service.enroll(session, user.id, course_id, run_id)
    if new:
        dispatch.enrolled(
            session,
            user_id=user.id,
            email=user.email,
            course_id=course.id,
            course=course.title,
            run_id=run_id,
        )
    return {"enrollment_id": enrollment.id, "task_id": enrollment.run_id}


@router.post("/lessons/{lesson_id}/complete", status_code=202)
async def complete(lesson_id: Id, user: Student, session: Writing) -> dict[str, Any]:
    """Finish a lesson. Done twice it counts once; progress is counted anew each time."""
    course_id = await service.course_of_lesson(session, lesson_id)
    if course_id is None:
        raise HTTPException(404, "There is no such lesson.")
    enrollment = await service.of(session, user.id, course_id)
    if enrollment is None:
        raise HTTPException(409, f"Enroll in the course first: POST /courses/{course_id}/enroll.")
    await service.complete_lesson(session, enrollment.id, lesson_id)
    task_id = dispatch.lesson_completed(
        session, user_id=user.id, enrollment_id=enrollment.id, lesson_id=lesson_id
    )
    return {"task_id": task_id, "enrollment_id": enrollment.id}


@router.get("/enrollments/{enrollment_id}")
async def one(enrollment_id: Id, user: SignedIn, session: Reading) -> dict[str, Any]:
    """How far one is in a course, and the certificate once there is one."""
    found = await service.get(session, enrollment_id)
    if found is None or found[0].user_id != user.id:
        raise HTTPException(404, "There is no such enrollment.")
    enrollment, course = found
    certificate = await certificates.of_enrollment(session, enrollment_id)
    issued = certificate if certificate and certificate.issued_at else None
    return {
        "id": enrollment.id,
        "course_id": course.id,
        "course": course.title,
        "progress_percentage": enrollment.progress,
        "enrolled_at": enrollment.enrolled_at,
        "completed_at": enrollment.completed_at,
        "certificate": issued and {"id": issued.id, "number": issued.number, "url": links.download(issued)},
    }
