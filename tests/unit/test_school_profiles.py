"""Profiles and statistics of the school."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from errands import Database
from school.app import app
from school.database import writing_session
from school.profiles.tasks import create_user_profile
from school.testing import School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


async def test_a_profile_is_made_once(school: School) -> None:
    ann = await school.user("ann@example.org")
    assert (await school.http.get("/profiles/me", headers=ann)).status_code == 404
    body = {"display_name": "Ann 王", "about": "I like algebra."}
    made = await school.http.post("/profiles", json=body, headers=ann)
    assert (made.status_code, made.json()["status"]) == (202, "queued")
    again = await school.http.post("/profiles", json={"display_name": "Another"}, headers=ann)
    status = await school.http.get(f"/api/tasks/{again.json()['task_id']}", headers=ann)
    assert status.json()["result"]["status"] == "already_exists"
    mine = (await school.http.get("/profiles/me", headers=ann)).json()
    assert (mine["display_name"], mine["about"]) == ("Ann 王", "I like algebra.")
    assert (await school.http.post("/profiles", json=body)).status_code == 401


async def test_the_task_can_be_tried_with_a_session_of_ones_own(school: School) -> None:
    await school.user("ann@example.org")
    [user_id] = school.emails
    async with writing_session(school.database) as session:
        first = await create_user_profile.run_with_db(session, user_id, "Ann")
        second = await create_user_profile.run_with_db(session, user_id, "Ann")
    assert [first["status"], second["status"]] == ["created", "already_exists"]


async def test_statistics_are_counted_anew_when_asked(school: School) -> None:
    ann, course = await school.user("ann@example.org"), await school.course(lessons=2)
    assert (await school.http.get("/statistics/me", headers=ann)).status_code == 404
    await school.graduate(ann, course)
    await school.enroll(ann, await school.course(title="Botany"))
    asked = await school.http.post("/statistics/refresh", headers=ann)
    assert asked.status_code == 202
    told = (await school.http.get("/statistics/me", headers=ann)).json()
    assert told.pop("updated_at")
    assert told.pop("user_id") in school.emails
    assert told == {
        "enrollments": 2, "courses_completed": 1, "lessons_completed": 2, "certificates": 1,
        "average_progress": 50,
    }  # fmt: skip


async def test_nobody_is_no_user_to_count(school: School) -> None:
    failed = app.tasks["update_user_stats"].delay(999)
    assert failed.state == "FAILURE"
    assert "there is no user 999" in str(failed.result)
