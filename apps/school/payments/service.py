"""What can be done with payments. All SQL of this subject is here."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from school.database import changed, insert_missing
from school.payments.charging import Charge
from school.payments.tables import Payment, PaymentStatus


async def begin(
    session: AsyncSession, *, user_id: int, course_id: int, amount: Decimal, key: str, run_id: str
) -> tuple[Payment, bool]:
    """The payment that this user asked for with this key, and whether it is new."""
    made = await insert_missing(
        session, Payment, user_id=user_id, course_id=course_id, amount=amount, idempotency_key=key,
        status=PaymentStatus.PROCESSING.value, run_id=run_id, created_at=clock.now(),
    )  # fmt: skip
    query = select(Payment).where(Payment.user_id == user_id, Payment.idempotency_key == key)
    return (await session.scalars(query)).one(), made


async def get(session: AsyncSession, payment_id: int) -> Payment | None:
    """The payment."""
    return await session.get(Payment, payment_id)


async def settle(session: AsyncSession, payment_id: int, charge: Charge) -> bool:
    """Say how it ended; True for the one caller, ever, who is first."""
    settled = await session.execute(
        update(Payment)
        .where(Payment.id == payment_id, Payment.status == PaymentStatus.PROCESSING)
        .values(
            status=charge.status.value, receipt=charge.receipt, reason=charge.reason, settled_at=clock.now()
        )
        .execution_options(synchronize_session=False)
    )
    return changed(settled) == 1
