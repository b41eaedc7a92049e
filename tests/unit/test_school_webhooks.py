"""Where the school tells others what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
async def hook(school: School, admin: dict[str, str]) -> dict[str, Any]:
    body = {"url": URL, "events": ["user.*"], "ordered": True}
    return dict((await school.http.post("/webhooks", json=body, headers=admin)).json())


async def test_a_secret_is_rotated_and_both_sign_for_a_day(
    school: School, admin: dict[str, str], hook: dict[str, Any]
) -> None:
    answer = await school.http.post(f"/webhooks/{hook['id']}/rotate", headers=admin)
    assert answer.status_code == 200
    new = answer.json()["secret"]
    assert new != hook["secret"]
    assert answer.json()["previous_secret_until"]
    await register(school)
    for secret in (new, hook["secret"]):
        verify(school.sender.sent[0].headers, school.sender.sent[0].body, secret)
    assert new not in (await school.http.get("/webhooks", headers=admin)).text
    body = {"previous_hours": 0}
    newest = (await school.http.post(f"/webhooks/{hook['id']}/rotate", json=body, headers=admin)).json()
    assert newest["previous_secret_until"] is None
    for wrong in ({"previous_hours": -1}, {"previous_hours": 10_000}, {"hours": 1}):
        answer = await school.http.post(f"/webhooks/{hook['id']}/rotate", json=wrong, headers=admin)
        assert answer.status_code == 422


async def test_a_ping_tells_whether_it_arrived(
    school: School, admin: dict[str, str], hook: dict[str, Any]
) -> None:
    school.sender.answer_with(503)
    failed = (await school.http.post(f"/webhooks/{hook['id']}/ping", headers=admin)).json()
    assert (failed["status_code"], failed["delivered_at"]) == (503, None)
    assert "503" in failed["error"]
    arrived = (await school.http.post(f"/webhooks/{hook['id']}/ping", headers=admin)).json()
    assert arrived["status_code"] == 200
    assert arrived["delivered_at"]
    assert school.sender.sent[1].json["type"] == "webhook.ping"


async def test_a_delivery_is_replayed_under_its_own_id(
    school: School, admin: dict[str, str], hook: dict[str, Any]
) -> None:
    school.sender.answer_with(400)
    await register(school)
    [failed] = (await school.http.get(f"/webhooks/{hook['id']}/deliveries", headers=admin)).json()
    answer = await school.http.post(f"/webhooks/deliveries/{failed['id']}/replay", headers=admin)
    assert answer.status_code == 202
    first, second = school.sender.sent
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    newest = (await school.http.get(f"/webhooks/{hook['id']}/deliveries", headers=admin)).json()[0]
    assert newest["task_id"] == answer.json()["task_id"]
    assert newest["webhook_id"] == failed["webhook_id"]
    assert newest["status_code"] == 200


async def test_an_address_is_disabled_and_enabled_again(
    school: School, admin: dict[str, str], hook: dict[str, Any]
) -> None:
    url = f"/webhooks/{hook['id']}"
    off = (await school.http.patch(url, json={"active": False}, headers=admin)).json()
    assert not off["active"]
    assert "disabled by user" in off["disabled_reason"]
    await register(school)
    assert school.sender.sent == []
    body = {"active": True, "events": ["course.*"], "ordered": False}
    on = (await school.http.patch(url, json=body, headers=admin)).json()
    assert on["active"]
    assert (on["disabled_reason"], on["events"], on["ordered"]) == (None, ["course.*"], False)
    assert (await school.http.patch(url, json={}, headers=admin)).json() == on
    for wrong in ({"events": []}, {"events": ["no.such"]}, {"url": URL}):
        assert (await school.http.patch(url, json=wrong, headers=admin)).status_code == 422


async def test_what_there_is_not_and_who_may_not(school: School, admin: dict[str, str]) -> None:
    student = await school.user("ann@example.org")
    for method, url in (
        ("PATCH", "/webhooks/x"), ("POST", "/webhooks/x/rotate"), ("POST", "/webhooks/x/ping"),
        ("POST", "/webhooks/deliveries/x/replay"),
    ):  # fmt: skip
        body = {"active": True} if method == "PATCH" else None
        assert (await school.http.request(method, url, json=body, headers=admin)).status_code == 404, url
        assert (await school.http.request(method, url, json=body, headers=student)).status_code == 403, url
        assert (await school.http.request(method, url, json=body)).status_code == 401, url
    assert school.sender.sent == []


async def test_the_admins_are_told_of_an_address_that_is_gone(
    school: School, admin: dict[str, str], hook: dict[str, Any]
) -> None:
    school.sender.answer_with(410)
    await register(school)
    told = (await school.http.get("/api/notifications", headers=admin)).json()["notifications"]
    assert [each["title"] for each in told] == ["A webhook was switched off"]
    assert hook["url"] in told[0]["message"]
    assert told[0]["data"] == {"endpoint_id": hook["id"]}
