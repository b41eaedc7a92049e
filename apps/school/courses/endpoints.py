"""Courses: made by instructors, seen by everybody who is signed in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import Field

from school.access import Instructor, Reading, SignedIn, Writing, cache
from school.courses import service
from school.courses.tables import Course
from school.fields import Id, Input, Title

router = APIRouter(prefix="/courses", tags=["courses"])


class NewCourse(Input):
    title: Title
    lessons: Annotated[list[Title], Field(default_factory=list, max_length=500)]


@router.post("", status_code=201)
async def make(body: NewCourse, user: Instructor, session: Writing) -> dict[str, Any]:
    """Make a course with its lessons."""
    return _shown(await service.make(session, user.id, body.title, body.lessons))


@router.get("")
async def all_courses(
    _: SignedIn,
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
) -> list[dict[str, Any]]:
    """Courses with their lessons."""
    return [_shown(course) for course in await service.page(session, limit=limit, offset=offset)]


@router.get("/{course_id}")
async def one(course_id: Id, _: SignedIn, session: Reading) -> dict[str, Any]:
    """A course with its lessons."""
    return _shown(await _found(session, course_id))


@router.get("/{course_id}/completion-rate")
async def completion_rate(course_id: Id, _: Instructor, session: Reading) -> dict[str, Any]:
    """How many of a hundred have completed the course; at most an hour old."""
    await _found(session, course_id)
    rate = await service.cached_rate(session, cache(), course_id)
    return {"course_id": course_id, "completion_rate": rate}


async def _found(session: Reading, course_id: int) -> Course:
    course = await service.get(session, course_id)
    if course is None:
        raise HTTPException(404, "There is no such course.")
    return course


def _shown(course: Course) -> dict[str, Any]:
    return {
        "id": course.id,
        "title": course.title,
        "instructor_id": course.instructor_id,
        "created_at": course.created_at,
        "lessons": [
            {"id": lesson.id, "title": lesson.title, "position": lesson.position} for lesson in course.lessons
        ],
    }
