"""First data: made once, the same everywhere, passwords kept to oneself."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from errands import Database
from school import seed
from school.courses.tables import Course, Lesson
from school.database import Base, reading_session
from school.enrollments.tables import Enrollment
from school.people.tables import Role, User
from school.testing import School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path, migrate=True) as school:
        yield school


async def counts(school: School) -> dict[str, int]:
    async with reading_session(school.database) as session:
        return {
            table.name: await session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


async def test_it_makes_a_school_once(
    school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "seed.json"
    monkeypatch.setenv("ERRANDS_SEED_FILE", str(told))
    access = await seed.seed()
    made = await counts(school)
    assert made["users"] == 302
    assert made["courses"] == 8
    assert made["enrollments"] > 150
    assert made["lesson_completions"] > 100
    assert json.loads(told.read_text()) == access
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "school-passwords.json").stat().st_mode) == 0o600
    assert await seed.seed() == access
    assert await counts(school) == made
    assert school.mailer.outbox == []


async def test_everybody_can_sign_in_also_when_the_passwords_were_lost(
    school: School, tmp_path: Path
) -> None:
    first = await seed.seed()
    (tmp_path / "school-passwords.json").unlink()
    access = await seed.seed()
    assert access["admin_password"] != first["admin_password"]
    for who, role in (("admin", "admin"), ("instructor", "instructor"), ("student", "student")):
        body = {"email": access[f"{who}_email"], "password": access[f"{who}_password"]}
        login = await school.http.post("/login", json=body)
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert (await school.http.get("/me", headers=headers)).json()["role"] == role


async def test_progress_is_what_the_lessons_say_and_names_fit(school: School) -> None:
    await seed.seed()
    async with reading_session(school.database) as session:
        names = (await session.scalars(select(User.full_name).where(User.role == Role.STUDENT))).all()
        courses = (await session.scalars(select(Course.id))).all()
        lessons = await session.scalar(select(func.count(Lesson.id)))
        progress = (await session.scalars(select(Enrollment.progress))).all()
    assert len(set(names)) > 200
    assert len(courses) == 8
    assert lessons == 37
    assert max(progress) < 100
