"""Payments and orders of the school: charged once, told once, whatever is repeated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from sqlalchemy import select

from errands import ConfigurationError, Database
from school.app import app
from school.database import reading_session
from school.enrollments.tables import Enrollment
from school.payments.gateway import (
    Declined,
    Gateway,
    GatewayUnavailable,
    SandboxGateway,
    StripeGateway,
    gateway,
)
from school.people.tables import Role
from school.testing import WEBHOOK_HOST, School, school_on
from web import Web, response
from web import web as serving


class Till(SandboxGateway):
    """Counts what was charged, and fails on its first calls if it is told to. Keys are known again."""

    def __init__(self) -> None:
        self.charged: dict[str, Decimal] = {}
        self.problems: list[Exception] = []

    async def charge(self, amount: Decimal, *, key: str, description: str) -> str:
        receipt = await super().charge(amount, key=key, description=description)
        self.charged[key] = amount  # it is done, whatever becomes of the answer
        if self.problems:
            raise self.problems.pop(0)
        return receipt


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
def till(school: School) -> Till:
    till = Till()
    app.provide(Gateway, lambda: till, scope="process")
    return till


async def pay(
    school: School, headers: dict[str, str], course: Any, amount: Any = "49.90", key: str | None = "k1"
) -> httpx.Response:
    more = {} if key is None else {"Idempotency-Key": key}
    body = {"course_id": course["id"], "amount": amount}
    return await school.http.post("/payments", json=body, headers={**headers, **more})


async def payment(school: School, headers: dict[str, str], answer: httpx.Response) -> dict[str, Any]:
    found = await school.http.get(f"/payments/{answer.json()['payment_id']}", headers=headers)
    found.raise_for_status()
    return dict(found.json())


async def test_a_payment_is_charged_once_and_told_once(school: School, till: Till) -> None:
    """Mistake 23: a payment that is tried again is charged twice."""
    admin = await school.user("admin@example.org", Role.ADMIN)
    hook = {"url": f"https://{WEBHOOK_HOST}/", "events": ["payment.completed"]}
    (await school.http.post("/webhooks", json=hook, headers=admin)).raise_for_status()
    ann, course = await school.user("ann@example.org"), await school.course()
    till.problems = [GatewayUnavailable("the answer was lost"), GatewayUnavailable("answered 503")]
    first = await pay(school, ann, course)
    again = await pay(school, ann, course)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["task_id"] == again.json()["task_id"]
    assert list(till.charged.values()) == [Decimal("49.90")]
    told = await payment(school, ann, first)
    assert (told["status"], told["amount"]) == ("charged", "49.90")
    assert told["receipt"].startswith("sandbox-")
    facts = {"payment_id": told["id"], "amount": "49.90", "course_id": course["id"]}
    assert [(event["type"], event["data"]) for event in school.events()] == [("payment.completed", facts)]


async def test_a_second_run_for_the_same_payment_charges_nothing(school: School, till: Till) -> None:
    ann, course = await school.user("ann@example.org"), await school.course()
    made = await pay(school, ann, course)
    again = app.tasks["process_payment"].delay(made.json()["payment_id"]).get()
    assert again["status"] == "charged"
    assert len(till.charged) == 1


async def test_a_declined_payment_says_why_and_stays_declined(school: School, till: Till) -> None:
    ann, course = await school.user("ann@example.org"), await school.course()
    told = await payment(school, ann, await pay(school, ann, course, "10.13"))
    assert (told["status"], told["reason"], told["receipt"]) == ("declined", "the card was declined", None)
    assert till.charged == {}


async def test_a_key_belongs_to_one_request_of_one_person(school: School, till: Till) -> None:
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    course = await school.course()
    assert (await pay(school, ann, course)).status_code == 202
    refused = await pay(school, ann, course, "50")
    assert (refused.status_code, "another request" in refused.json()["detail"]) == (422, True)
    assert (await pay(school, bob, course, "50")).status_code == 202
    assert sorted(till.charged.values()) == [Decimal("49.90"), Decimal("50.00")]


@pytest.mark.parametrize(
    ("amount", "key", "status"),
    [
        ("49.90", None, 400),
        ("49.90", "", 400),
        ("49.90", "x" * 201, 400),
        ("0", "k", 422),
        ("-1", "k", 422),
        ("1.005", "k", 422),
        ("100000.01", "k", 422),
        ("NaN", "k", 422),
    ],
)
async def test_what_is_no_payment_is_refused(
    school: School, till: Till, amount: str, key: str | None, status: int
) -> None:
    ann, course = await school.user("ann@example.org"), await school.course()
    assert (await pay(school, ann, course, amount, key)).status_code == status
    assert till.charged == {}


async def test_payments_are_for_students_and_seen_by_their_owner(school: School, till: Till) -> None:
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    course = await school.course()
    made = await pay(school, ann, course)
    path = f"/payments/{made.json()['payment_id']}"
    assert (await school.http.get(path, headers=bob)).status_code == 404
    assert (await school.http.get(path)).status_code == 401
    teacher = await school.user("teacher@school.test", Role.INSTRUCTOR)
    assert (await pay(school, teacher, course)).status_code == 403
    assert (await pay(school, ann, {"id": 999}, key="k2")).status_code == 404


async def order(
    school: School, headers: dict[str, str], courses: list[Any], amount: str = "80", key: str = "o1"
) -> httpx.Response:
    body = {"course_ids": [course["id"] for course in courses], "amount": amount}
    return await school.http.post("/orders", json=body, headers={**headers, "Idempotency-Key": key})


async def test_an_order_is_charged_once_and_enrols_in_all_its_courses(school: School, till: Till) -> None:
    ann = await school.user("ann@example.org")
    courses = [await school.course(title=title) for title in ("Algebra", "Botany", "Chess")]
    before = await school.enroll(ann, courses[0])
    till.problems = [GatewayUnavailable("the answer was lost")]
    first, again = await order(school, ann, courses), await order(school, ann, courses)
    assert first.json()["task_id"] == again.json()["task_id"]
    assert list(till.charged.values()) == [Decimal("80.00")]
    told = (await school.http.get(f"/orders/{first.json()['order_id']}", headers=ann)).json()
    assert (told["status"], told["course_ids"]) == ("charged", [course["id"] for course in courses])
    async with reading_session(school.database) as session:
        enrolled = (await session.execute(select(Enrollment.id, Enrollment.course_id))).all()
    assert sorted(course_id for _, course_id in enrolled) == [course["id"] for course in courses]
    assert before in [enrollment_id for enrollment_id, _ in enrolled]
    mails = [mail for mail in school.subjects() if mail.startswith("You are enrolled")]
    assert len(mails) == 3  # the one of before, and those of the two new ones
    assert (await order(school, ann, courses, "81")).status_code == 422
    assert (await order(school, ann, courses[:2])).status_code == 422


async def test_a_declined_order_enrols_nobody(school: School, till: Till) -> None:
    ann, course = await school.user("ann@example.org"), await school.course()
    made = await order(school, ann, [course], "5.13")
    told = (await school.http.get(f"/orders/{made.json()['order_id']}", headers=ann)).json()
    assert (told["status"], told["reason"]) == ("declined", "the card was declined")
    async with reading_session(school.database) as session:
        assert (await session.execute(select(Enrollment.id))).all() == []


async def test_orders_of_unknown_courses_and_of_others(school: School, till: Till) -> None:
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    course = await school.course()
    refused = await order(school, ann, [course, {"id": 998}, {"id": 999}])
    assert (refused.status_code, refused.json()["detail"]) == (404, "There is no course 998, 999.")
    made = await order(school, ann, [course])
    assert (await school.http.get(f"/orders/{made.json()['order_id']}", headers=bob)).status_code == 404


# -- Stripe's API, as its documentation describes it, on a server of this machine


@asynccontextmanager
async def stripe(status: int, body: Any) -> AsyncIterator[tuple[StripeGateway, Web]]:
    with serving() as web:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        web.pages["/v1/payment_intents"] = response(content, "application/json", status=status)
        gateway = StripeGateway("sk_test_1", url=web.url(""))
        yield gateway, web
        await gateway.aclose()


async def test_stripe_is_asked_with_the_key_and_in_cents() -> None:
    async with stripe(200, {"id": "pi_1", "status": "succeeded"}) as (gateway, web):
        assert await gateway.charge(Decimal("49.90"), key="k", description="course 1") == "pi_1"
    [(_, headers)], [form] = web.asked, [parse_qs(body.decode()) for body in web.bodies]
    assert (headers["idempotency-key"], headers["authorization"].split()[0]) == ("k", "Basic")
    assert (form["amount"], form["currency"], form["confirm"]) == (["4990"], ["eur"], ["true"])


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (
            402,
            {"error": {"code": "card_declined", "message": "It was declined."}},
            Declined,
            "declined",
        ),
        (400, {"error": {"code": "amount_too_small"}}, Declined, "amount_too_small"),
        (200, {"id": "pi_1", "status": "requires_action"}, Declined, "requires_action"),
        (409, {"error": {"code": "idempotency_key_in_use"}}, GatewayUnavailable, "409"),
        (429, {"error": {"code": "rate_limit"}}, GatewayUnavailable, "429"),
        (500, {"error": {"type": "api_error"}}, GatewayUnavailable, "500"),
        (503, b"upstream is away", GatewayUnavailable, "JSONDecodeError"),
    ],
)
async def test_what_stripe_refuses_and_what_passes(
    status: int, body: Any, error: type[Exception], words: str
) -> None:
    async with stripe(status, body) as (gateway, _):
        with pytest.raises(error, match=words):
            await gateway.charge(Decimal(1), key="k", description="d")


async def test_what_stripe_is_still_at_is_looked_up_and_never_taken_for_declined() -> None:
    async with stripe(200, {"id": "pi_1", "status": "processing"}) as (gateway, web):
        path = "/v1/payment_intents/pi_1"
        web.pages[path] = web.pages["/v1/payment_intents"]
        with pytest.raises(GatewayUnavailable, match="still"):
            await gateway.charge(Decimal(1), key="k", description="d")
        web.pages[path] = response(b'{"id": "pi_1", "status": "succeeded"}', "application/json")
        assert await gateway.charge(Decimal(1), key="k", description="d") == "pi_1"
        assert web.paths.count(path) == 2


def test_a_currency_without_cents_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="STRIPE_CURRENCY=JPY"):
        StripeGateway("sk_test_1", currency="JPY")


async def test_a_stripe_that_is_away_may_be_asked_again() -> None:
    gateway = StripeGateway("sk_test_1", url="http://127.0.0.1:1")
    with pytest.raises(GatewayUnavailable, match="ConnectError"):
        await gateway.charge(Decimal(1), key="k", description="d")
    await gateway.aclose()


def test_the_environment_says_who_takes_the_money(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(gateway(), SandboxGateway)
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_1")
    assert isinstance(gateway(), StripeGateway)
