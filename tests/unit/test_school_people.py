"""Registration, sign-in, roles, forgotten passwords."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from school.app import app
from school.database import reading_session
from school.people.tables import PasswordReset, Role, User, UserSession
from school.testing import PASSWORD, School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def lite(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    """For what is refused before any database is asked."""
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


def registration(**changes: object) -> dict[str, object]:
    return {"email": "ann@example.org", "password": PASSWORD, "full_name": "Ann Lee", **changes}


async def token_in_the_mail(school: School, email: str) -> str:
    found = re.search(r"token=([\w-]+)", school.mails_to(email)[-1].text)
    assert found
    return found[1]


async def count(school: School, table: type) -> int:
    async with reading_session(school.database) as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_registering_makes_a_student_and_sends_one_mail(school: School) -> None:
    answer = await school.http.post("/register", json=registration(full_name="Nguyễn Thị 王 علي"))
    assert answer.status_code == 201
    body = answer.json()
    assert body["status"] == "User created, email queued"
    assert body["user_id"]
    assert body["task_id"]
    [mail] = school.mails_to("ann@example.org")
    assert "Nguyễn Thị 王 علي" in mail.subject
    assert mail.html
    assert app.live.get(body["task_id"]).facts["owner"] == str(body["user_id"])  # type: ignore[union-attr]

    login = await school.http.post("/login", json={"email": "ANN@example.org", "password": PASSWORD})
    assert login.json()["token_type"] == "bearer"
    me = await school.http.get("/me", headers={"Authorization": f"Bearer {login.json()['access_token']}"})
    assert me.json()["role"] == "student"


async def test_an_address_is_taken_in_any_spelling_and_in_a_race(school: School) -> None:
    answers = await asyncio.gather(
        *(
            school.http.post("/register", json=registration(email=e))
            for e in ("a@b.org", "A@b.org", "a@B.org")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409]
    assert len(school.mailer.outbox) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "no address"},
        {"email": "ann@example.org\r\nBcc: all@example.org"},
        {"email": "a" * 300 + "@example.org"},
        {"email": None},
        {"password": "seven77"},
        {"password": "x" * 201},
        {"password": 12345678},
        {"full_name": ""},
        {"full_name": " \u200b "},
        {"full_name": "Ann\nLee"},
        {"full_name": "Ann\x00Lee"},
        {"full_name": "x" * 201},
        {"role": "admin"},
    ],
)
async def test_wrong_input_is_refused_with_a_reason_and_leaves_nothing(
    lite: School, wrong: dict[str, object]
) -> None:
    answer = await lite.http.post("/register", json=registration(**wrong))
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["msg"]
    assert PASSWORD not in answer.text
    assert await count(lite, User) == 0
    assert lite.mailer.outbox == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"email": "\\ud800@b.org", "password": "12345678", "full_name": "A"}',
        b'{"email": "a@b.org", "password": "12345678\\udfff", "full_name": "A"}',
        b'{"\\ud800": 1}',
        b'{"email": "a@b.org", "password": NaN, "full_name": "A"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_json_is_a_4xx(lite: School, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await lite.http.post("/register", content=content, headers=headers)
    assert answer.status_code in (400, 422)
    assert "detail" in answer.json()


async def test_a_body_of_a_megabyte_and_more_is_not_read(lite: School) -> None:
    async def drip() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 64 * 1024

    for content in (b" " * 2_000_000, drip()):
        answer = await lite.http.post("/register", content=content)
        assert answer.status_code == 413
        assert "detail" in answer.json()


async def test_nothing_is_sent_for_a_registration_that_rolled_back(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistake 25: `.delay` before the commit mails somebody who was never registered."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("between sending and commit")

    from school.people import endpoints

    real = endpoints.dispatch.user_registered

    def send_then_fail(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        fail()

    monkeypatch.setattr(endpoints.dispatch, "user_registered", send_then_fail)
    answer = await school.http.post("/register", json=registration())
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Something went wrong on our side; it is in our log."}
    assert await count(school, User) == 0
    assert school.mailer.outbox == []
    assert school.sender.sent == []


async def test_sign_in_needs_the_right_password_and_ends_after_ten_wrong_ones(school: School) -> None:
    await school.user("ann@example.org")
    with clock.use(FakeClock()) as time:
        wrong = {"email": "ann@example.org", "password": "wrong"}
        nobody = {"email": "nobody@example.org", "password": "wrong"}
        assert (await school.http.post("/login", json=nobody)).json() == (
            await school.http.post("/login", json=wrong)
        ).json()
        for _ in range(9):
            assert (await school.http.post("/login", json=wrong)).status_code == 401
        right = {**wrong, "password": PASSWORD}
        refused = await school.http.post("/login", json=right)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"]
        time.advance(300)  # type: ignore[attr-defined]
        assert (await school.http.post("/login", json=right)).status_code == 200


async def test_a_session_lives_thirty_days_from_its_last_use(school: School) -> None:
    with clock.use(FakeClock()) as time:
        headers = await school.user("ann@example.org")
        for _ in range(3):
            time.advance(timedelta(days=29))  # type: ignore[attr-defined]
            assert (await school.http.get("/me", headers=headers)).status_code == 200
        time.advance(timedelta(days=31))  # type: ignore[attr-defined]
        assert (await school.http.get("/me", headers=headers)).status_code == 401
        assert await count(school, UserSession) == 1
        assert app.tasks["cleanup_expired_sessions"].delay().get()["deleted"] == 1
        assert await count(school, UserSession) == 0


async def test_signing_out_ends_the_session(school: School) -> None:
    headers = await school.user("ann@example.org")
    assert (await school.http.post("/logout", headers=headers)).status_code == 204
    assert (await school.http.get("/me", headers=headers)).status_code == 401


async def test_no_token_is_kept_in_the_database(school: School) -> None:
    headers = await school.user("ann@example.org")
    token = headers["Authorization"].removeprefix("Bearer ")
    async with reading_session(school.database) as session:
        kept = (await session.scalars(select(UserSession.token_hash))).one()
    assert token not in kept
    assert (await school.http.get("/me", headers={"Authorization": f"Bearer {kept}"})).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/me"),
        ("POST", "/courses"),
        ("GET", "/courses"),
        ("POST", "/courses/1/enroll"),
        ("POST", "/lessons/1/complete"),
        ("GET", "/enrollments/1"),
        ("GET", "/courses/1/completion-rate"),
        ("POST", "/webhooks"),
        ("GET", "/webhooks"),
        ("DELETE", "/webhooks/1"),
        ("GET", "/webhooks/1/deliveries"),
        ("PUT", "/users/1/role"),
        ("DELETE", "/certificates/C-1"),
    ],
)
async def test_who_is_not_signed_in_gets_401(lite: School, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer made-up"}, {"Authorization": "Basic YTpi"}):
        answer = await lite.http.request(method, path, headers=headers, json={})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_roles_are_checked_and_given_by_admins(school: School) -> None:
    student = await school.user("ann@example.org")
    admin = await school.user("admin@example.org", Role.ADMIN)
    for method, path, body in (
        ("POST", "/courses", {"title": "T", "lessons": []}),
        ("GET", "/courses/1/completion-rate", None),
        ("GET", "/webhooks", None),
        ("PUT", "/users/1/role", {"role": "admin"}),
    ):
        answer = await school.http.request(method, path, headers=student, json=body)
        assert answer.status_code == 403, path
    me = (await school.http.get("/me", headers=student)).json()
    path = f"/users/{me['user_id']}/role"
    assert (await school.http.put(path, json={"role": "king"}, headers=admin)).status_code == 422
    assert (await school.http.put(path, json={"role": "instructor"}, headers=admin)).status_code == 204
    assert (
        await school.http.put("/users/999/role", json={"role": "admin"}, headers=admin)
    ).status_code == 404
    course = {"title": "T", "lessons": []}
    assert (await school.http.post("/courses", json=course, headers=student)).status_code == 201


async def test_a_reset_link_works_once_and_ends_every_session(school: School) -> None:
    headers = await school.user("ann@example.org")
    answer = await school.http.post("/password-reset", json={"email": "ANN@example.org"})
    assert answer.status_code == 202
    token = await token_in_the_mail(school, "ann@example.org")
    body = {"token": token, "password": "a new password"}
    both = await asyncio.gather(*(school.http.post("/password-reset/confirm", json=body) for _ in range(2)))
    assert sorted(answer.status_code for answer in both) == [204, 400]
    assert (await school.http.get("/me", headers=headers)).status_code == 401
    login = {"email": "ann@example.org", "password": "a new password"}
    assert (await school.http.post("/login", json=login)).status_code == 200
    assert (await school.http.post("/login", json={**login, "password": PASSWORD})).status_code == 401


async def test_a_reset_link_is_good_for_twenty_minutes_and_for_the_last_password_only(school: School) -> None:
    await school.user("ann@example.org")
    with clock.use(FakeClock()) as time:
        await school.http.post("/password-reset", json={"email": "ann@example.org"})
        first = await token_in_the_mail(school, "ann@example.org")
        await school.http.post("/password-reset", json={"email": "ann@example.org"})
        second = await token_in_the_mail(school, "ann@example.org")
        time.advance(timedelta(minutes=19, seconds=59))  # type: ignore[attr-defined]
        body = {"token": second, "password": "a new password"}
        assert (await school.http.post("/password-reset/confirm", json=body)).status_code == 204
        body = {"token": first, "password": "another one!"}
        assert (await school.http.post("/password-reset/confirm", json=body)).status_code == 400

        await school.http.post("/password-reset", json={"email": "ann@example.org"})
        third = await token_in_the_mail(school, "ann@example.org")
        time.advance(timedelta(minutes=20))  # type: ignore[attr-defined]
        body = {"token": third, "password": "another one!"}
        assert (await school.http.post("/password-reset/confirm", json=body)).status_code == 400


async def test_a_reset_for_nobody_is_answered_and_worked_on_alike(school: School) -> None:
    await school.user("ann@example.org")
    answers, sent = [], []
    for email in ("ann@example.org", "nobody@example.org"):
        with app.capturing() as runs:
            answers.append(await school.http.post("/password-reset", json={"email": email}))
            sent.append([run["task"] for run in runs])
    known, unknown = answers
    assert known.status_code == unknown.status_code == 202
    assert known.json().keys() == unknown.json().keys()
    assert known.json()["status"] == unknown.json()["status"]
    assert sent[0] == sent[1] == ["request_password_reset"]
    await school.http.post("/password-reset", json={"email": "nobody@example.org"})
    assert school.mailer.outbox == []


async def test_a_box_is_not_flooded_with_reset_mails(school: School) -> None:
    await school.user("ann@example.org")
    for _ in range(8):
        answer = await school.http.post("/password-reset", json={"email": "ann@example.org"})
        assert answer.status_code == 202
    assert len(school.mails_to("ann@example.org")) == 5


async def test_the_reset_token_is_nowhere_but_in_the_mail(school: School) -> None:
    """Mistake 8: a token that is a plain argument is read by whoever has Redis, Flower or the logs."""
    await school.user("ann@example.org")
    await school.http.post("/password-reset", json={"email": "ann@example.org"})
    token = await token_in_the_mail(school, "ann@example.org")
    told = json.dumps([event.to_json().decode() for event in app.live.events])  # type: ignore[attr-defined]
    assert "send_password_reset_email" in told
    assert token not in told
    async with reading_session(school.database) as session:
        kept = (await session.scalars(select(PasswordReset.token_hash))).all()
    assert all(token not in row for row in kept)
    with app.capturing() as runs:
        app.tasks["send_password_reset_email"].delay("a@b.org", "Ann", "the-token-itself")
    assert runs
    assert "the-token-itself" not in str(runs)


async def test_the_page_behind_the_reset_link_works_without_script(lite: School) -> None:
    await lite.user("ann@example.org")
    await lite.http.post("/password-reset", json={"email": "ann@example.org"})
    token = await token_in_the_mail(lite, "ann@example.org")
    form = await lite.http.get("/password-reset", params={"token": f'{token}"><script>'})
    assert "<script>" not in form.text
    assert "script" not in form.headers["Content-Security-Policy"]
    sent = {"token": token, "password": "short"}
    assert (await lite.http.post("/password-reset/page", data=sent)).status_code == 422
    sent["password"] = "a new password"
    assert "is set" in (await lite.http.post("/password-reset/page", data=sent)).text
    assert (await lite.http.post("/password-reset/page", data=sent)).status_code == 400


async def test_ids_beyond_every_number_are_a_4xx(school: School) -> None:
    headers = await school.user("ann@example.org")
    for path in ("/courses/99999999999999999999", "/enrollments/-1", "/courses/1e3", "/courses/0"):
        assert (await school.http.get(path, headers=headers)).status_code == 422
