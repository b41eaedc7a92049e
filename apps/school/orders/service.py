"""What can be done with orders. All SQL of this subject is here."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from school.courses.tables import Course
from school.database import changed, insert_missing
from school.orders.tables import Order, OrderItem
from school.payments.charging import Charge
from school.payments.tables import PaymentStatus


async def missing(session: AsyncSession, course_ids: Collection[int]) -> set[int]:
    """Those ids that are no course's."""
    known = await session.scalars(select(Course.id).where(Course.id.in_(course_ids)))
    return set(course_ids) - set(known)


async def begin(
    session: AsyncSession,
    *,
    user_id: int,
    course_ids: Collection[int],
    amount: Decimal,
    key: str,
    run_id: str,
) -> tuple[Order, bool]:
    """The order that this user made with this key, and whether it is new."""
    made = await insert_missing(
        session, Order, user_id=user_id, amount=amount, idempotency_key=key,
        status=PaymentStatus.PROCESSING.value, run_id=run_id, created_at=clock.now(),
    )  # fmt: skip
    query = select(Order).where(Order.user_id == user_id, Order.idempotency_key == key)
    order = (await session.scalars(query)).one()
    if made:
        await session.execute(
            insert(OrderItem), [{"order_id": order.id, "course_id": course_id} for course_id in course_ids]
        )
    return order, made


async def courses_of(session: AsyncSession, order_id: int) -> list[Course]:
    """The courses in the order."""
    query = select(Course).join(OrderItem).where(OrderItem.order_id == order_id).order_by(Course.id)
    return list(await session.scalars(query))


async def get(session: AsyncSession, order_id: int) -> Order | None:
    """The order."""
    return await session.get(Order, order_id)


async def settle(session: AsyncSession, order_id: int, charge: Charge) -> bool:
    """Say how it ended; True for the one caller, ever, who is first."""
    settled = await session.execute(
        update(Order)
        .where(Order.id == order_id, Order.status == PaymentStatus.PROCESSING)
        .values(
            status=charge.status.value, receipt=charge.receipt, reason=charge.reason, settled_at=clock.now()
        )
        .execution_options(synchronize_session=False)
    )
    return changed(settled) == 1
