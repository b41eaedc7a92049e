"""Courses, enrolling, lessons, progress, completion."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from errands import Database, Discard, Run
from errands.core import clock
from errands.core.clock import FakeClock
from school.analytics.tables import AnalyticsEvent
from school.app import app
from school.certificates.tables import Certificate
from school.courses import service as courses
from school.database import reading_session, writing_session
from school.enrollments import service
from school.enrollments.tables import Enrollment, LessonCompletion
from school.enrollments.tasks import update_enrollment_progress
from school.people.tables import Role
from school.testing import WEBHOOK_HOST, School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def lite(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    """For what is refused before any database is asked."""
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


async def count(school: School, table: type) -> int:
    async with reading_session(school.database) as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def everything_is_told(school: School) -> None:
    admin = await school.user("admin@example.org", Role.ADMIN)
    body = {"url": f"https://{WEBHOOK_HOST}/", "events": ["*"]}
    (await school.http.post("/webhooks", json=body, headers=admin)).raise_for_status()


async def test_an_instructor_makes_a_course_and_everybody_sees_it(school: School) -> None:
    course = await school.course(lessons=3, title="代数 · الجبر")
    assert [lesson["title"] for lesson in course["lessons"]] == ["Lesson 1", "Lesson 2", "Lesson 3"]
    headers = await school.user("ann@example.org")
    assert (await school.http.get(f"/courses/{course['id']}", headers=headers)).json() == course
    assert (await school.http.get("/courses", headers=headers)).json() == [course]
    assert (await school.http.get("/courses?offset=1", headers=headers)).json() == []
    assert (await school.http.get("/courses/99", headers=headers)).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": "  ", "lessons": []},
        {"title": "A", "lessons": [""]},
        {"title": "A", "lessons": ["x" * 201]},
        {"title": "A", "lessons": ["x"] * 501},
        {"title": "A", "lessons": "Lesson"},
        {"title": "A", "lessons": [], "price": 3},
        {"title": "A\r\nB", "lessons": []},
    ],
)
async def test_a_wrong_course_is_refused(lite: School, body: dict[str, object]) -> None:
    headers = await lite.user("teacher@school.test", Role.INSTRUCTOR)
    assert (await lite.http.post("/courses", json=body, headers=headers)).status_code == 422
    assert (await lite.http.get("/courses", headers=headers)).json() == []


async def test_enrolling_twice_at_once_is_one_enrollment_one_mail_one_event(school: School) -> None:
    await everything_is_told(school)
    course = await school.course(title="Σ & <b>")
    headers = await school.user("ann@example.org", name="Åsa")
    answers = await asyncio.gather(
        *(school.http.post(f"/courses/{course['id']}/enroll", headers=headers) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({(a.json()["enrollment_id"], a.json()["task_id"]) for a in answers}) == 1
    [mail] = school.mails_to("ann@example.org")
    assert "Σ & <b>" in mail.subject
    assert mail.html
    assert "Σ &amp; &lt;b&gt;" in mail.html
    [event] = school.events()
    assert event["type"] == "course.enrolled"
    assert event["data"]["course_id"] == course["id"]
    assert app.live.known(answers[0].json()["task_id"])


async def test_what_cannot_be_done_says_so(school: School) -> None:
    course = await school.course()
    headers = await school.user("ann@example.org")
    teacher = await school.user("teacher@school.test")
    lesson = course["lessons"][0]
    assert (await school.http.post("/courses/99/enroll", headers=headers)).status_code == 404
    assert (await school.http.post("/lessons/99/complete", headers=headers)).status_code == 404
    assert (await school.complete(headers, lesson)).status_code == 409
    assert (await school.http.post(f"/courses/{course['id']}/enroll", headers=teacher)).status_code == 403
    assert (await school.http.get("/enrollments/99", headers=headers)).status_code == 404
    assert await count(school, LessonCompletion) == 0


async def test_an_enrollment_of_somebody_else_does_not_exist(school: School) -> None:
    """Mistake 17: whoever guesses an id reads what belongs to another."""
    course = await school.course()
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    enrollment_id = await school.enroll(ann, course)
    theirs = await school.http.get(f"/enrollments/{enrollment_id}", headers=bob)
    nothing = await school.http.get("/enrollments/12345", headers=bob)
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.json() == nothing.json()
    task_id = (await school.http.post(f"/courses/{course['id']}/enroll", headers=ann)).json()["task_id"]
    assert (await school.http.get(f"/api/tasks/{task_id}", headers=ann)).status_code == 200
    assert (await school.http.get(f"/api/tasks/{task_id}", headers=bob)).status_code == 404


async def test_progress_climbs_and_a_lesson_done_twice_counts_once(school: School) -> None:
    course = await school.course(lessons=3)
    headers = await school.user("ann@example.org")
    enrollment_id = await school.enroll(headers, course)
    seen = []
    for number in (0, 0, 1, 2):
        answer = await school.complete(headers, course["lessons"][number])
        assert answer.status_code == 202
        assert answer.json()["enrollment_id"] == enrollment_id
        shown = (await school.http.get(f"/enrollments/{enrollment_id}", headers=headers)).json()
        seen.append(shown["progress_percentage"])
    assert seen == [33, 33, 66, 100]
    assert shown["completed_at"]
    assert shown["certificate"]["number"]


async def test_the_last_lesson_starts_everything_once(school: School) -> None:
    await everything_is_told(school)
    headers = await school.user("ann@example.org")
    shown = await school.graduate(headers, await school.course())
    for lesson in (await school.http.get("/courses/1", headers=headers)).json()["lessons"]:
        await school.complete(headers, lesson)
    assert school.subjects() == [
        "You are enrolled: Algebra",
        "Your certificate: Algebra",
        "You have completed Algebra",
    ]
    assert [event["type"] for event in school.events()] == [
        "course.enrolled",
        "certificate.generated",
        "course.completed",
    ]
    completed = school.events()[-1]["data"]
    assert completed["certificate_id"] == shown["certificate"]["id"]
    assert completed.keys() == {"user_id", "course_id", "certificate_id"}
    assert await count(school, Certificate) == 1
    assert await count(school, AnalyticsEvent) == 1


async def test_two_last_lessons_at_the_same_moment_complete_once_fifty_times_over(school: School) -> None:
    """Mistake 6: both read, both write; completion starts twice, or never."""
    course = await school.course(lessons=2)
    headers = await school.user("ann@example.org")
    me = (await school.http.get("/me", headers=headers)).json()["user_id"]
    async with writing_session(school.database) as session:
        made = [await courses.make(session, me, f"Course {number}", ["one", "two"]) for number in range(50)]
        rows = [(await service.enroll(session, me, course.id, f"r{course.id}"))[0].id for course in made]
    del course

    async def finish(enrollment_id: int, lesson_id: int) -> bool:
        async with writing_session(school.database) as session:
            await service.complete_lesson(session, enrollment_id, lesson_id)
            await session.commit()
            return (await service.recount(session, enrollment_id)).completed

    for course, enrollment_id in zip(made, rows, strict=True):
        both = await asyncio.gather(*(finish(enrollment_id, lesson.id) for lesson in course.lessons))
        assert sorted(both) == [False, True]
    async with reading_session(school.database) as session:
        states = (
            await session.execute(select(Enrollment.progress, Enrollment.completed_at.is_not(None)))
        ).all()
    assert [tuple(state) for state in states] == [(100, True)] * 50


async def test_two_last_lessons_through_the_endpoints_give_one_of_everything(school: School) -> None:
    """Mistake 6, all the way: one certificate, one mail of each kind, one event of each kind."""
    await everything_is_told(school)
    headers = await school.user("ann@example.org")
    for number in range(5):
        course = await school.course(lessons=2, title=f"Course {number}")
        await school.enroll(headers, course)
        answers = await asyncio.gather(*(school.complete(headers, lesson) for lesson in course["lessons"]))
        assert {answer.status_code for answer in answers} == {202}
    for number in range(5):
        mails = sorted(subject for subject in school.subjects() if subject.endswith(f"Course {number}"))
        assert mails == [
            f"You are enrolled: Course {number}",
            f"You have completed Course {number}",
            f"Your certificate: Course {number}",
        ]
    kinds = [event["type"] for event in school.events()]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "course.enrolled": 5,
        "certificate.generated": 5,
        "course.completed": 5,
    }
    assert await count(school, Certificate) == 5


async def test_an_older_count_does_not_undo_a_newer_one(school: School) -> None:
    """Mistake 6: on PostgreSQL, a statement that waits for a row counts what it saw before the wait."""
    course = await school.course(lessons=2)
    headers = await school.user("ann@example.org")
    enrollment_id = await school.enroll(headers, course)
    first, second = (lesson["id"] for lesson in course["lessons"])

    async def count_it() -> service.Recount:
        async with writing_session(school.database) as session:
            return await service.recount(session, enrollment_id)

    async with writing_session(school.database) as session:
        await service.complete_lesson(session, enrollment_id, first)
    async with writing_session(school.database) as session:
        await service.complete_lesson(session, enrollment_id, second)
        await service.recount(session, enrollment_id)  # takes the row, and sees both lessons
        waiting = asyncio.create_task(count_it())
        done, _ = await asyncio.wait({waiting}, timeout=0.2)
        assert not done
    assert (await waiting) == service.Recount(100, completed=False)


async def test_a_course_without_lessons_is_at_zero(school: School) -> None:
    """Mistake 7: it divides by zero."""
    course = await school.course(lessons=0)
    headers = await school.user("ann@example.org")
    enrollment_id = await school.enroll(headers, course)
    async with writing_session(school.database) as session:
        assert await service.recount(session, enrollment_id) == service.Recount(0, completed=False)
    shown = (await school.http.get(f"/enrollments/{enrollment_id}", headers=headers)).json()
    assert shown["progress_percentage"] == 0
    assert shown["completed_at"] is None
    assert shown["certificate"] is None


async def test_a_task_for_what_does_not_fit_is_discarded_not_retried(school: School) -> None:
    """Mistake 4: a permanent error is retried."""
    course, other = await school.course(), await school.course(title="Other")
    headers = await school.user("ann@example.org")
    enrollment_id = await school.enroll(headers, course)
    for wrong in ((99, course["lessons"][0]["id"]), (enrollment_id, other["lessons"][0]["id"])):
        async with writing_session(school.database) as session:
            with pytest.raises(Discard):
                await update_enrollment_progress(*wrong, run=Run("r", "t"), session=session)
    run = app.tasks["trigger_course_completion"].delay(enrollment_id)
    live = app.live.get(run.id)
    assert live is not None
    assert (live.state, live.attempt) == ("discarded", 1)


async def test_the_completion_rate_is_a_percentage_kept_for_an_hour(school: School) -> None:
    """Mistake 7, again: a course that nobody takes is at 0 %."""
    course = await school.course(lessons=1)
    teacher = await school.user("teacher@school.test", Role.INSTRUCTOR)
    path = f"/courses/{course['id']}/completion-rate"

    async def rate() -> float:
        answer = (await school.http.get(path, headers=teacher)).json()
        assert answer["course_id"] == course["id"]
        return float(answer["completion_rate"])

    with clock.use(FakeClock()) as time:
        assert await rate() == 0
        for name in ("ann", "bob", "cid"):
            await school.enroll(await school.user(f"{name}@example.org"), course)
        await school.complete(await school.user("ann@example.org"), course["lessons"][0])
        assert await rate() == 33.33  # a completion refreshes it
        await school.enroll(await school.user("dan@example.org"), course)
        assert await rate() == 33.33
        time.advance(3600)  # type: ignore[attr-defined]
        assert await rate() == 25
    assert app.tasks["calculate_course_completion_rate"].delay(course["id"]).get() == 25
    assert (await school.http.get("/courses/99/completion-rate", headers=teacher)).status_code == 404
