"""Messages and notifications of the school: answered at once, sent behind the answer, told one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from errands import Database, InvalidArguments
from errands.kits.messaging import PermanentMessageError, ProviderUnavailable
from school.app import app
from school.people.tables import Role
from school.testing import School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def teacher(school: School) -> dict[str, str]:
    return await school.user("teacher@school.test", Role.INSTRUCTOR, "Tea Cher")


NUMBERS = ["+49 1512 3456789", "+12025550123", "+4915123456789", "+999", "+442071838750"]


def numbers(school: School) -> list[str]:
    return [to for to, _ in school.messenger.outbox]


async def test_messages_are_queued_at_once_and_told_one_by_one(
    school: School, teacher: dict[str, str]
) -> None:
    body = {"phone_numbers": NUMBERS, "message": "The school is closed today.", "message_type": "text"}
    answer = await school.http.post("/api/send-bulk-messages", json=body, headers=teacher)
    assert answer.status_code == 202
    told = answer.json()
    task_id, _ = told.pop("task_id"), told.pop("progress_url")
    assert told == {
        "status": "queued", "recipients": 5, "message": "Messages will be sent in background"
    }  # fmt: skip
    assert sorted(numbers(school)) == ["+12025550123", "+442071838750", "+4915123456789"]
    page = (await school.http.get(f"/api/deliveries/{task_id}", headers=teacher)).json()
    assert (page["totals"]["sent"], page["totals"]["skipped"]) == (3, 2)
    states = [(row["recipient"], row["state"]) for row in page["deliveries"]]
    assert [state for _, state in states] == ["sent", "sent", "skipped", "skipped", "sent"]
    progress = (await school.http.get(f"/api/tasks/{task_id}/progress", headers=teacher)).json()
    assert (progress["status"], progress["percentage"]) == ("completed", 100)
    other = await school.user("other@school.test", Role.INSTRUCTOR)
    assert (await school.http.get(f"/api/deliveries/{task_id}", headers=other)).status_code == 404


async def test_who_failed_is_sent_to_again_and_nobody_else(school: School, teacher: dict[str, str]) -> None:
    school.messenger.fail_with(PermanentMessageError("the number is no phone"))
    body = {"phone_numbers": ["+4915123456789", "+12025550123"], "message": "Hello"}
    task_id = (await school.http.post("/api/send-bulk-messages", json=body, headers=teacher)).json()[
        "task_id"
    ]
    path = f"/api/deliveries/{task_id}"
    page = (await school.http.get(path, headers=teacher)).json()
    assert (page["totals"]["sent"], page["totals"]["failed"]) == (1, 1)
    assert [row["reason"] for row in page["deliveries"] if row["reason"]] == ["the number is no phone"]
    assert (await school.http.post(f"{path}/resend-failed", headers=teacher)).status_code == 202
    assert sorted(numbers(school)) == ["+12025550123", "+4915123456789"]
    assert (await school.http.post(f"{path}/resend-failed", headers=teacher)).status_code == 409


async def test_a_template(school: School, teacher: dict[str, str]) -> None:
    body = {"phone_number": "+4915123456789", "template": "exam_date", "values": {"day": "Monday"}}
    answer = await school.http.post("/api/send-template-message", json=body, headers=teacher)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    run = (await school.http.get(f"/api/tasks/{answer.json()['task_id']}", headers=teacher)).json()
    assert run["result"]["status"] == "sent"


@pytest.mark.parametrize(
    "body",
    [
        {"phone_numbers": [], "message": "x"},
        {"phone_numbers": ["call me"], "message": "x"},
        {"phone_numbers": NUMBERS, "message": ""},
        {"phone_numbers": NUMBERS, "message": "x" * 1001},
        {"phone_numbers": NUMBERS, "message": "x", "message_type": "video"},
        {"message": "x"},
    ],
)
async def test_what_cannot_be_sent_is_refused(
    school: School, teacher: dict[str, str], body: dict[str, Any]
) -> None:
    assert (await school.http.post("/api/send-bulk-messages", json=body, headers=teacher)).status_code == 422
    assert numbers(school) == []


async def test_messages_are_for_instructors(school: School) -> None:
    ann = await school.user("ann@example.org")
    body = {"phone_numbers": NUMBERS, "message": "x"}
    assert (await school.http.post("/api/send-bulk-messages", json=body, headers=ann)).status_code == 403
    assert (await school.http.post("/api/send-bulk-messages", json=body)).status_code == 401


async def notifications(school: School, headers: dict[str, str]) -> dict[str, Any]:
    answer = await school.http.get("/api/notifications", headers=headers)
    answer.raise_for_status()
    return dict(answer.json())


async def test_notifications_to_some_to_a_role_and_to_all(school: School, teacher: dict[str, str]) -> None:
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    ann_id = next(user_id for user_id, email in school.emails.items() if email.startswith("ann"))
    body = {"user_ids": [ann_id], "title": "Your essay", "message": "It is graded."}
    answer = await school.http.post("/api/notifications", json=body, headers=teacher)
    assert (answer.status_code, answer.json()["recipients"]) == (202, 1)
    admin = await school.user("admin@example.org", Role.ADMIN)
    for role in ("student", None):
        text = {"title": f"To {role or 'all'}", "message": "Holidays begin.", "role": role}
        sent = await school.http.post("/api/notifications/broadcast", json=text, headers=admin)
        assert sent.status_code == 202

    async def titles(headers: dict[str, str]) -> list[str]:
        return [each["title"] for each in (await notifications(school, headers))["notifications"]]

    assert await titles(ann) == ["To all", "To student", "Your essay"]
    assert await titles(bob) == ["To all", "To student"]
    assert await titles(teacher) == ["To all"]
    assert (await notifications(school, ann))["unread"] == 3
    assert (await school.http.post("/api/notifications/read", headers=ann)).json() == {"unread": 0}
    assert (await school.http.post("/api/notifications", json=body, headers=ann)).status_code == 403
    broadcast = {"title": "x", "message": "y"}
    refused = await school.http.post("/api/notifications/broadcast", json=broadcast, headers=teacher)
    assert refused.status_code == 403


async def test_one_notification_has_a_person_and_a_text(school: School) -> None:
    ann = await school.user("ann@example.org")
    app.tasks["send_notification"].delay(next(iter(school.emails)), "Welcome")
    assert [each["message"] for each in (await notifications(school, ann))["notifications"]] == ["Welcome"]
    for wrong in ((0, "x"), (-1, "x"), (1, ""), (1, "x" * 1001)):
        with pytest.raises(InvalidArguments, match="send_notification"):
            app.tasks["send_notification"].delay(*wrong)


async def test_a_provider_that_is_away_loses_nobodys_turn(school: School, teacher: dict[str, str]) -> None:
    school.messenger.fail_with(ProviderUnavailable("503"), times=2)
    body = {"phone_numbers": ["+4915123456789"], "message": "Hello"}
    task_id = (await school.http.post("/api/send-bulk-messages", json=body, headers=teacher)).json()[
        "task_id"
    ]
    page = (await school.http.get(f"/api/deliveries/{task_id}", headers=teacher)).json()
    assert page["totals"]["sent"] == 1
