"""Work that concerns whole courses."""

from __future__ import annotations

from errands import Discard, Retry
from school.app import app
from school.cache import Cache
from school.courses import service
from school.database import ReadingSession


@app.task(name="calculate_course_completion_rate", queue="progress", retry=Retry(3, first=5, most=60))
async def calculate_course_completion_rate(course_id: int, *, session: ReadingSession, cache: Cache) -> float:
    """The share of completed enrollments in percent (0 with none), kept in the cache for an hour."""
    if await service.get(session, course_id) is None:
        raise Discard(f"there is no course {course_id}")
    return await service.refresh_rate(session, cache, course_id)
