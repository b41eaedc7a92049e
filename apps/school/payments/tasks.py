"""Charging."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Retry, Run
from school import dispatch
from school.app import app
from school.payments import service
from school.payments.charging import charge_once
from school.payments.gateway import Gateway
from school.payments.tables import PaymentStatus


@app.task(name="process_payment", queue="celery", retry=Retry(5, first=10, most=600))
async def process_payment(
    payment_id: int, *, run: Run, session: AsyncSession, gateway: Gateway
) -> dict[str, Any]:
    """Charge a payment, once however often it is tried, and tell.

    The charge belongs to the payment, not to the run: another run for the same payment does not charge again.
    """
    payment = await service.get(session, payment_id)
    if payment is None:
        raise Discard(f"there is no payment {payment_id}")
    if payment.status != PaymentStatus.PROCESSING:
        return {"payment_id": payment.id, "status": payment.status, "receipt": payment.receipt}
    amount, course_id = payment.amount, payment.course_id
    await session.commit()  # no transaction stays open while the gateway is asked
    charge = await charge_once(
        run, gateway, amount, scope=f"payment:{payment_id}", description=f"course {course_id}"
    )
    if await service.settle(session, payment_id, charge) and charge.paid:
        dispatch.payment_completed(session, run, payment_id=payment_id, amount=amount, course_id=course_id)
    return {"payment_id": payment_id, **charge.as_json()}
