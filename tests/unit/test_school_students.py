"""Reports on students, and lists of them out of the school and into it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select

from errands import Database
from errands.kits.documents import Chart, Facts, Table
from school.app import app
from school.database import reading_session
from school.people.tables import Role, User
from school.students import service
from school.testing import PASSWORD, School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def teacher(school: School) -> dict[str, str]:
    return await school.user("teacher@school.test", Role.INSTRUCTOR, "Tea Cher")


async def result(school: School, headers: dict[str, str], answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    run = (await school.http.get(f"/api/tasks/{answer.json()['task_id']}", headers=headers)).json()
    assert run["status"] == "SUCCESS", run
    return dict(run["result"])


async def imported(
    school: School, headers: dict[str, str], content: bytes, params: str = ""
) -> dict[str, Any]:
    file = {"file": ("students.csv", content)}
    asked = await school.http.post(f"/api/students/import{params}", files=file, headers=headers)
    return await result(school, headers, asked)


async def download(school: School, url: str) -> bytes:
    answer = await school.http.get(httpx.URL(url).raw_path.decode())
    answer.raise_for_status()
    return answer.content


async def test_a_report_on_a_student(school: School, teacher: dict[str, str]) -> None:
    ann = await school.user("ann@example.org", name="Ann 王")
    ann_id = next(user_id for user_id, email in school.emails.items() if email.startswith("ann"))
    await school.graduate(ann, await school.course(lessons=2))
    await school.enroll(ann, await school.course(title="Botany", lessons=3))
    asked = await school.http.post(f"/api/students/{ann_id}/report", headers=teacher)
    assert {"task_id": asked.json()["task_id"], "status": "generating"}.items() <= asked.json().items()
    made = await result(school, teacher, asked)
    assert made["courses"] == 2
    assert (await download(school, made["url"])).startswith(b"%PDF")
    [report] = school.documents.reports
    facts, courses, chart = report.sections
    assert report.title == "Report on Ann 王"
    assert isinstance(facts, Facts)
    assert ("Completed", 1) in list(facts.facts)
    assert isinstance(courses, Table)
    assert [row[2:4] for row in list(courses.rows)] == [("2/2", 100), ("0/3", 0)]  # type: ignore[arg-type]
    assert isinstance(chart, Chart)
    assert (await school.http.post("/api/students/999/report", headers=teacher)).status_code == 404
    assert (await school.http.post(f"/api/students/{ann_id}/report", headers=ann)).status_code == 403


async def test_a_report_on_all_courses(school: School, teacher: dict[str, str]) -> None:
    for title in ("Algebra", "Botany"):
        await school.course(title=title)
    made = await result(school, teacher, await school.http.post("/api/reports", headers=teacher))
    assert (made["courses"], made["partial"]) == (2, False)


async def test_a_report_whose_time_is_over_has_what_there_is(
    school: School, teacher: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for title in ("Algebra", "Botany", "Chess"):
        await school.course(title=title)
    figures, seen = service.figures_of, []

    async def slow(session: Any, course_id: int) -> Any:
        seen.append(course_id)
        if len(seen) == 3:
            raise SoftTimeLimitExceeded
        return await figures(session, course_id)

    monkeypatch.setattr(service, "figures_of", slow)
    made = await result(school, teacher, await school.http.post("/api/reports", headers=teacher))
    assert (made["courses"], made["partial"]) == (2, True)
    assert school.documents.reports[0].notice == "Not complete: 2 of 3 courses."


async def test_students_are_exported_the_active_ones_or_all(school: School, teacher: dict[str, str]) -> None:
    """Mistake 29: a formula in a cell runs in the reader's spreadsheet."""
    for number, name in enumerate(("=HYPERLINK(1)", "Bob", "Cid")):
        await school.user(f"s{number}@example.org", name=name)
    admin = await school.user("admin@example.org", Role.ADMIN)
    cid = next(user_id for user_id, email in school.emails.items() if email == "s2@example.org")
    gone = await school.http.put(f"/users/{cid}/active", json={"active": False}, headers=admin)
    assert gone.status_code == 204

    async def names(active_only: bool) -> list[str]:
        body = {"active_only": active_only}
        asked = await school.http.post("/api/students/export", json=body, headers=teacher)
        assert asked.json()["status"] == "processing"
        made = await result(school, teacher, asked)
        rows = list(csv.DictReader(io.StringIO((await download(school, made["link"])).decode("utf-8-sig"))))
        assert made["rows"] == len(rows)
        return [row["Full name"] for row in rows]

    assert await names(active_only=True) == ["'=HYPERLINK(1)", "Bob"]
    assert await names(active_only=False) == ["'=HYPERLINK(1)", "Bob", "Cid"]
    ann = await school.user("ann@example.org")
    refused = await school.http.post("/api/students/export", json={}, headers=ann)
    assert refused.status_code == 403


async def test_who_is_no_instructor_any_more_gets_no_list(school: School, teacher: dict[str, str]) -> None:
    """The role counts when the list is made, not only when it is asked for."""
    ann = await school.user("ann@example.org")
    ann_id = next(user_id for user_id, email in school.emails.items() if email.startswith("ann"))
    refused = app.tasks["export_students_csv"].delay({}, ann_id)
    assert refused.state == "FAILURE"
    assert "may not" in str(refused.result)
    assert ann


async def test_a_list_with_bad_rows_is_taken_without_them(school: School) -> None:
    admin = await school.user("admin@example.org", Role.ADMIN)
    await school.user("old@example.org", name="Old Name")
    good = [f"s{n}@example.org,Student {n},yes" for n in range(60)]
    bad = ["no address,Somebody,yes", "x@example.org,,yes", "y@example.org,Some One,maybe"]
    lines = ["E-Mail,Name,Active", *good, *bad, "old@example.org,New Name,yes", "admin@example.org,A,yes"]
    content = "\n".join(lines).encode()
    told = await imported(school, admin, content, "?dry_run=true")
    assert told["status"] == "dry_run"
    done = await imported(school, admin, content)
    for counts in (told, done):
        assert (counts["created"], counts["updated"], counts["refused"]) == (60, 1, 4)
    again = await imported(school, admin, content)
    assert (again["created"], again["unchanged"], again["refused"]) == (0, 61, 4)
    assert [one["row"] for one in told["refusals"]] == [one["row"] for one in done["refusals"]]
    reasons = {one["row"]: [reason["field"] for reason in one["reasons"]] for one in told["refusals"]}
    assert sorted(len(fields) for fields in reasons.values()) == [1, 1, 1, 1]
    async with reading_session(school.database) as session:
        names = dict((await session.execute(select(User.email, User.full_name))).all())
        roles = dict((await session.execute(select(User.email, User.role))).all())
    assert (names["old@example.org"], names["s7@example.org"]) == ("New Name", "Student 7")
    assert roles["admin@example.org"] == Role.ADMIN
    body = {"email": "s7@example.org", "password": ""}
    assert (await school.http.post("/login", json={**body, "password": PASSWORD})).status_code == 401


async def test_a_list_that_is_none_is_refused(school: School) -> None:
    admin = await school.user("admin@example.org", Role.ADMIN)
    file = {"file": ("students.exe", b"x")}
    assert (await school.http.post("/api/students/import", files=file, headers=admin)).status_code == 415
    file = {"file": ("students.csv", b"a,b\n1,2\n")}
    asked = await school.http.post("/api/students/import", files=file, headers=admin)
    run = (await school.http.get(f"/api/tasks/{asked.json()['task_id']}", headers=admin)).json()
    assert run["state"] == "discarded"
    assert "none of the columns is known" in run["error"]
    teacher = await school.user("teacher@school.test", Role.INSTRUCTOR)
    assert (await school.http.post("/api/students/import", files=file, headers=teacher)).status_code == 403


async def test_who_is_not_active_is_out_at_once(school: School) -> None:
    admin, ann = await school.user("admin@example.org", Role.ADMIN), await school.user("ann@example.org")
    ann_id = next(user_id for user_id, email in school.emails.items() if email.startswith("ann"))
    path = f"/users/{ann_id}/active"
    assert (await school.http.put(path, json={"active": False}, headers=ann)).status_code == 403
    assert (await school.http.put(path, json={"active": False}, headers=admin)).status_code == 204
    assert (await school.http.get("/me", headers=ann)).status_code == 401
    body = {"email": "ann@example.org", "password": PASSWORD}
    assert (await school.http.post("/login", json=body)).status_code == 401
    assert (await school.http.put(path, json={"active": True}, headers=admin)).status_code == 204
    assert (await school.http.post("/login", json=body)).status_code == 200
    assert (
        await school.http.put("/users/999/active", json={"active": True}, headers=admin)
    ).status_code == 404
