"""First data for a school that is to be tried out: people, courses, and how far some of them are.

Called before each start of the local run; what is there already stays as it is.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Database
from errands.core import clock
from school import seed_words as words
from school.app import app
from school.courses.tables import Course, Lesson
from school.database import writing_session
from school.enrollments.tables import Enrollment, LessonCompletion
from school.fields import email_key
from school.migrate import upgrade
from school.people.passwords import hash_now
from school.people.tables import Role, User

ADMIN, INSTRUCTOR = "admin@school.example", "instructor@school.example"
STUDENTS = 300
# Everybody's data is the same on every machine; only passwords are not.
_SEED = 20260101


async def seed() -> dict[str, Any]:
    """Make the data that is missing; return, and write to ERRANDS_SEED_FILE if it is set, how to sign in."""
    database = app.database
    await asyncio.to_thread(upgrade, database)
    passwords, new = _passwords(app.settings.home / "school-passwords.json")
    try:
        await _fill(database, passwords, new_passwords=new)
    finally:
        await database.adispose()
    access = {
        "admin_email": ADMIN,
        "admin_password": passwords["admin"],
        "instructor_email": INSTRUCTOR,
        "instructor_password": passwords["instructor"],
        "student_email": _student(0)["email"],
        "student_password": passwords["student"],
        "hints": [
            f"Sign in at POST /login, also as {INSTRUCTOR} or {_student(0)['email']} (see access.json).",
            "Walk the whole way, from registration to certificate, payments, files and messages: make demo",
            "Start work and open the progress_url of the answer in a browser.",
        ],
    }
    if path := os.environ.get("ERRANDS_SEED_FILE"):
        await asyncio.to_thread(_write_private, Path(path), access)
    return access


async def _fill(database: Database, passwords: dict[str, str], *, new_passwords: bool) -> None:
    """All of it in one transaction, so that a start that was interrupted leaves nothing half-done."""
    hashes = await asyncio.to_thread(lambda: {who: hash_now(word) for who, word in passwords.items()})
    async with writing_session(database) as session:
        known = await session.scalar(select(User.id).where(User.email_key == email_key(ADMIN)))
        if known is not None:
            if new_passwords:
                await _set_passwords(session, hashes)
            return
        teacher = await _people(session, hashes)
        courses = await _courses(session, teacher)
        await _enrollments(session, courses)


async def _people(session: AsyncSession, hashes: dict[str, str]) -> int:
    """Returns the instructor's id. One hash serves all students: 300 of them would take ten seconds."""
    now = clock.now()

    def row(email: str, name: str, role: Role, who: str, days: int) -> dict[str, Any]:
        return {
            "email": email, "email_key": email_key(email), "full_name": name, "role": role.value,
            "password_hash": hashes[who], "created_at": now - timedelta(days=days),
        }  # fmt: skip

    people = [
        row(ADMIN, "Ada Admin", Role.ADMIN, "admin", 90),
        row(INSTRUCTOR, "Iris Instructor", Role.INSTRUCTOR, "instructor", 80),
    ]
    for number in range(STUDENTS):
        student = _student(number)
        people.append(row(student["email"], student["name"], Role.STUDENT, "student", 60 - number % 60))
    await session.execute(insert(User.__table__), people)  # type: ignore[arg-type]
    query = select(User.id).where(User.email_key == email_key(INSTRUCTOR))
    return (await session.scalars(query)).one()


async def _courses(session: AsyncSession, teacher: int) -> list[Course]:
    courses = [
        Course(
            title=title,
            instructor_id=teacher,
            created_at=clock.now() - timedelta(days=70),
            lessons=[Lesson(position=n, title=lesson) for n, lesson in enumerate(lessons, start=1)],
        )
        for title, lessons in words.COURSES.items()
    ]
    session.add_all(courses)
    await session.flush()
    return courses


async def _enrollments(session: AsyncSession, courses: list[Course]) -> None:
    """Two students of three take a course or two. Nobody is done: finishing is what there is to try."""
    chance = random.Random(_SEED)  # noqa: S311
    students = (
        await session.scalars(select(User.id).where(User.role == Role.STUDENT).order_by(User.id))
    ).all()
    now = clock.now()
    plans = [
        (student, course, chance.randint(0, len(course.lessons) - 1))
        for student in students
        if chance.random() < 2 / 3
        for course in chance.sample(courses, chance.choice([1, 1, 2]))
    ]
    await session.execute(
        insert(Enrollment.__table__),  # type: ignore[arg-type]
        [
            {
                "user_id": student, "course_id": course.id, "progress": 100 * done // len(course.lessons),
                "enrolled_at": now - timedelta(days=chance.randint(1, 30)),
            }
            for student, course, done in plans
        ],
    )  # fmt: skip
    rows = await session.execute(select(Enrollment.user_id, Enrollment.course_id, Enrollment.id))
    ids = {(user_id, course_id): enrollment_id for user_id, course_id, enrollment_id in rows}
    await session.execute(
        insert(LessonCompletion.__table__),  # type: ignore[arg-type]
        [
            {"enrollment_id": ids[student, course.id], "lesson_id": lesson.id, "completed_at": now}
            for student, course, done in plans
            for lesson in course.lessons[:done]
        ],
    )


async def _set_passwords(session: AsyncSession, hashes: dict[str, str]) -> None:
    """The file with the passwords was lost: the new ones shall open the old accounts."""
    emails = {"admin": ADMIN, "instructor": INSTRUCTOR, "student": _student(0)["email"]}
    for who, email in emails.items():
        await session.execute(
            update(User).where(User.email_key == email_key(email)).values(password_hash=hashes[who])
        )


def _student(number: int) -> dict[str, str]:
    """The name and address of student `number`, the same every time."""
    given, family, order = words.NAMES[number % len(words.NAMES)]
    pick = number // len(words.NAMES)
    name = order.format(given=given[pick % len(given)], family=family[pick // len(given) % len(family)])
    return {"name": name, "email": f"student{number + 1:03}@school.example"}


def _passwords(path: Path) -> tuple[dict[str, str], bool]:
    """The random passwords of this folder, and whether they were drawn just now."""
    try:
        kept: dict[str, str] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        kept = {}
    if kept.keys() >= {"admin", "instructor", "student"}:
        return kept, False
    drawn = {who: secrets.token_urlsafe(12) for who in ("admin", "instructor", "student")}
    _write_private(path, drawn)
    return drawn, True


def _write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace the file in one step; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
    draft.replace(path)


if __name__ == "__main__":
    asyncio.run(seed())
