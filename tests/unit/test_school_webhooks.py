"""Where the school tells others what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.webhooks import verify
from school.people.tables import Role
from school.testing import PASSWORD, WEBHOOK_HOST, School, school_on

URL = f"https://{WEBHOOK_HOST}/in"


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def lite(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    """For what is refused before any database is asked."""
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


@pytest.fixture
async def admin(school: School) -> dict[str, str]:
    return await school.user("admin@example.org", Role.ADMIN)


async def register(school: School) -> dict[str, object]:
    body = {"email": "ann@example.org", "password": PASSWORD, "full_name": "Ann"}
    answer = await school.http.post("/register", json=body)
    assert answer.status_code == 201
    return dict(answer.json())


async def test_the_secret_is_shown_once_and_signs_what_is_sent(school: School, admin: dict[str, str]) -> None:
    """Mistake 10: a signature over other bytes than those sent, without a time."""
    made = await school.http.post("/webhooks", json={"url": URL, "events": ["user.*"]}, headers=admin)
    assert made.status_code == 201
    secret = made.json()["secret"]
    listed = await school.http.get("/webhooks", headers=admin)
    assert [hook["url"] for hook in listed.json()] == [URL]
    assert secret not in listed.text
    user_id = (await register(school))["user_id"]
    [sent] = school.sender.sent
    assert verify(sent.headers, sent.body, secret).startswith("msg_")
    assert sent.headers["X-Webhook-Event"] == "user.registered"
    assert sent.headers["X-Webhook-Signature"]
    assert sent.json["data"] == {"user_id": user_id, "email": "ann@example.org", "role": "student"}


async def test_attempts_are_listed_and_what_failed_is_tried_again(
    school: School, admin: dict[str, str]
) -> None:
    hook = (await school.http.post("/webhooks", json={"url": URL, "events": ["*"]}, headers=admin)).json()
    school.sender.answer_with(503)
    with clock.use(FakeClock()):
        await register(school)
    rows = (await school.http.get(f"/webhooks/{hook['id']}/deliveries", headers=admin)).json()
    assert [(row["attempt"], row["status_code"]) for row in rows] == [(2, 200), (1, 503)]
    assert rows[1]["next_try_at"]
    assert rows[1]["error"]
    assert rows[0]["event"] == "user.registered"


async def test_no_address_is_nothing_to_do(school: School) -> None:
    await register(school)
    assert school.sender.sent == []


@pytest.mark.parametrize(
    "body",
    [
        {"url": "https://127.0.0.1/", "events": ["*"]},
        {"url": "https://169.254.169.254/latest", "events": ["*"]},
        {"url": "http://example.org/", "events": ["*"]},
        {"url": "ftp://example.org/", "events": ["*"]},
        {"url": "https://user:pass@example.org/", "events": ["*"]},
        {"url": "", "events": ["*"]},
        {"url": URL, "events": []},
        {"url": URL, "events": ["course.exploded"]},
        {"url": URL, "events": ["*"] * 51},
        {"url": URL},
    ],
)
async def test_addresses_inside_and_unknown_events_are_refused(lite: School, body: dict[str, object]) -> None:
    """Mistake 11: a webhook address may point into the internal network."""
    admin = await lite.user("admin@example.org", Role.ADMIN)
    answer = await lite.http.post("/webhooks", json=body, headers=admin)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert (await lite.http.get("/webhooks", headers=admin)).json() == []


async def test_an_address_is_registered_once_and_can_be_removed(
    school: School, admin: dict[str, str]
) -> None:
    body = {"url": URL, "events": ["*"]}
    hook = (await school.http.post("/webhooks", json=body, headers=admin)).json()
    assert (await school.http.post("/webhooks", json=body, headers=admin)).status_code == 409
    assert (await school.http.delete(f"/webhooks/{hook['id']}", headers=admin)).status_code == 204
    assert (await school.http.delete(f"/webhooks/{hook['id']}", headers=admin)).status_code == 404
    assert (await school.http.get(f"/webhooks/{hook['id']}/deliveries", headers=admin)).status_code == 404
    await register(school)
    assert school.sender.sent == []
