"""An order, from the charge to the enrollments."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Retry, Run
from school import dispatch
from school.app import app
from school.enrollments import service as enrollments
from school.orders import service
from school.payments.charging import charge_once
from school.payments.gateway import Gateway
from school.payments.tables import PaymentStatus
from school.people.tables import User


@app.task(name="process_order", queue="celery", retry=Retry(5, first=10, most=600))
async def process_order(
    order_id: int, *, run: Run, session: AsyncSession, gateway: Gateway
) -> dict[str, Any]:
    """Charge an order once, then enrol in all its courses: all of them and what follows, or nothing.

    Whoever is enrolled in a course already stays so, and gets no second mail.
    """
    order = await service.get(session, order_id)
    if order is None:
        raise Discard(f"there is no order {order_id}")
    if order.status != PaymentStatus.PROCESSING:
        return {"order_id": order.id, "status": order.status, "receipt": order.receipt}
    amount, user_id = order.amount, order.user_id
    await session.commit()  # no transaction stays open while the gateway is asked
    charge = await charge_once(
        run, gateway, amount, scope=f"order:{order_id}", description=f"order {order_id}"
    )
    enrolled = []
    if await service.settle(session, order_id, charge) and charge.paid:
        user = (await session.get_one(User, user_id)).email
        for course in await service.courses_of(session, order_id):
            run_id = run.child_id(f"enrolled {course.id}")
            enrollment, new = await enrollments.enroll(session, user_id, course.id, run_id)
            enrolled.append(enrollment.id)
            if new:
                dispatch.enrolled(
                    session, user_id=user_id, email=user, course_id=course.id, course=course.title,
                    run_id=run_id,
                )  # fmt: skip
    return {"order_id": order_id, **charge.as_json(), "enrollments": enrolled}
