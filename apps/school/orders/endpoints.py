"""Ordering several courses at once."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import Field

from school import dispatch
from school.access import Reading, SignedIn, Student, Writing
from school.fields import Id, Input
from school.idempotency import IdempotencyKey, used_otherwise
from school.orders import service
from school.payments.endpoints import Amount

router = APIRouter(tags=["orders"])


class NewOrder(Input):
    course_ids: Annotated[list[Id], Field(min_length=1, max_length=50)]
    amount: Amount


@router.post("/orders", status_code=202)
async def order(body: NewOrder, key: IdempotencyKey, user: Student, session: Writing) -> dict[str, Any]:
    """Order courses: one charge, then one is enrolled in all of them. The same key is one order."""
    wanted = sorted(set(body.course_ids))
    if missing := await service.missing(session, wanted):
        raise HTTPException(404, f"There is no course {', '.join(map(str, sorted(missing)))}.")
    made, new = await service.begin(
        session, user_id=user.id, course_ids=wanted, amount=body.amount, key=key, run_id=dispatch.new_id()
    )
    courses = await service.courses_of(session, made.id)
    if made.amount != body.amount or [course.id for course in courses] != wanted:
        raise used_otherwise()
    if new:
        dispatch.ordered(session, order_id=made.id, user_id=user.id, run_id=made.run_id)
    return {
        "order_id": made.id, "task_id": made.run_id, "status": made.status,
        "message": "The order is being processed.",
    }  # fmt: skip


@router.get("/orders/{order_id}")
async def one(order_id: Id, user: SignedIn, session: Reading) -> dict[str, Any]:
    """How an order of one's own stands."""
    found = await service.get(session, order_id)
    if found is None or found.user_id != user.id:
        raise HTTPException(404, "There is no such order.")
    courses = await service.courses_of(session, order_id)
    return {
        "id": found.id, "course_ids": [course.id for course in courses], "amount": found.amount,
        "status": found.status, "receipt": found.receipt, "reason": found.reason,
        "created_at": found.created_at, "settled_at": found.settled_at,
    }  # fmt: skip
