"""Paying for a course."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import Field

from school import dispatch
from school.access import Reading, SignedIn, Student, Writing
from school.courses import service as courses
from school.fields import Id, Input
from school.idempotency import IdempotencyKey, used_otherwise
from school.payments import service

router = APIRouter(tags=["payments"])

Amount = Annotated[Decimal, Field(gt=0, le=100_000, max_digits=8, decimal_places=2)]


class NewPayment(Input):
    course_id: Id
    amount: Amount


@router.post("/payments", status_code=202)
async def pay(body: NewPayment, key: IdempotencyKey, user: Student, session: Writing) -> dict[str, Any]:
    """Pay for a course. With the same Idempotency-Key it is one payment, however often it is sent."""
    if await courses.get(session, body.course_id) is None:
        raise HTTPException(404, "There is no such course.")
    payment, new = await service.begin(
        session, user_id=user.id, course_id=body.course_id, amount=body.amount, key=key,
        run_id=dispatch.new_id(),
    )  # fmt: skip
    if (payment.course_id, payment.amount) != (body.course_id, body.amount):
        raise used_otherwise()
    if new:
        dispatch.payment_asked(session, payment_id=payment.id, user_id=user.id, run_id=payment.run_id)
    return {
        "payment_id": payment.id, "task_id": payment.run_id, "status": payment.status,
        "message": "The payment is being processed.",
    }  # fmt: skip


@router.get("/payments/{payment_id}")
async def one(payment_id: Id, user: SignedIn, session: Reading) -> dict[str, Any]:
    """How a payment of one's own stands."""
    payment = await service.get(session, payment_id)
    if payment is None or payment.user_id != user.id:
        raise HTTPException(404, "There is no such payment.")
    return {
        "id": payment.id, "course_id": payment.course_id, "amount": payment.amount, "status": payment.status,
        "receipt": payment.receipt, "reason": payment.reason, "created_at": payment.created_at,
        "settled_at": payment.settled_at,
    }  # fmt: skip
