"""What became of each attempt, and what follows from it for its endpoint."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case, delete, exists, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Database
from errands.core import clock
from errands.kits.webhooks.errors import UnknownDelivery
from errands.kits.webhooks.tables import deliveries, endpoints

# So many attempts must have failed before an endpoint is disabled: where there is an event a week, two bad
# moments are no week of failure.
LEAST_FAILURES = 10
_GONE = 410
_CHUNK = 1000  # rows that are deleted in one transaction


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver. `next_try_at` is about when the next one comes, None if none follows.

    `message_id` is the webhook-id, the same at every attempt and replay; None in records of before it was
    kept.
    """

    run_id: str
    event: str
    url: str
    attempt: int
    status_code: int | None
    error: str | None
    duration_ms: int
    at: datetime
    endpoint_id: str | None = None
    next_try_at: datetime | None = None
    delivered_at: datetime | None = None
    message_id: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Disabling:
    """When an endpoint is disabled by itself, and who is told.

    `tell(session, endpoint_id, url, reason)` is called in the transaction that disables it.
    """

    after: timedelta | None = timedelta(days=5)
    tell: Callable[[AsyncSession, str, str, str], object] | None = None


class Records:
    """The part of `WebhookStore` that keeps attempts."""

    def __init__(self, database: Database, disabling: Disabling) -> None:
        self._database = database
        self._disabling = disabling

    async def record(self, delivery: Delivery, body: str | None = None, *, counts: bool = True) -> None:
        """Keep what became of one attempt, and disable its endpoint if that is due: at once when it answered
        410, else when nothing has succeeded there for `Disabling.after`.

        Args:
            body: what was sent; kept once for a message, for a replay.
            counts: whether the attempt tells how the endpoint is; a ping tells nothing.
        """
        row: dict[str, Any] = {name: getattr(delivery, name) for name in Delivery.__dataclass_fields__}
        # NULL where it was removed while the attempt was under way.
        here = select(endpoints.c.id).where(endpoints.c.id == delivery.endpoint_id)
        row["endpoint_id"] = here.scalar_subquery()
        if body is not None:
            kept = exists().where(
                deliveries.c.message_id == delivery.message_id, deliveries.c.body.is_not(None)
            )
            row["body"] = case((kept, None), else_=body)
        async with self._database.async_session() as session:
            await session.execute(insert(deliveries).values(row))
            if counts and delivery.endpoint_id is not None:
                await self._note(session, delivery.endpoint_id, delivery)

    async def deliveries(self, endpoint_id: str, *, limit: int = 100) -> Sequence[Delivery]:
        """The latest attempts at one endpoint, the newest first."""
        query = (
            _SELECT.where(deliveries.c.endpoint_id == endpoint_id)
            .order_by(deliveries.c.at.desc(), deliveries.c.attempt.desc())
            .limit(limit)
        )
        async with self._database.async_reading() as connection:
            return [Delivery(**row) for row in (await connection.execute(query)).mappings()]

    async def delivery(self, delivery_id: str) -> Delivery:
        """One attempt.

        Raises:
            UnknownDelivery: there is none with this id, or not any more.
        """
        async with self._database.async_reading() as connection:
            query = _SELECT.where(deliveries.c.id == delivery_id)
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            raise UnknownDelivery(f"no webhook delivery {delivery_id!r} is on record")
        return Delivery(**row)

    async def body(self, delivery: Delivery) -> bytes:
        """What was sent in this attempt, to the byte.

        Raises:
            UnknownDelivery: it was not kept, or not any more.
        """
        query = select(deliveries.c.body).where(
            deliveries.c.message_id == delivery.message_id, deliveries.c.body.is_not(None)
        )
        async with self._database.async_reading() as connection:
            body = await connection.scalar(query.limit(1))
        if body is None:
            raise UnknownDelivery(f"what was sent in the webhook delivery {delivery.id!r} is not on record")
        return str(body).encode()

    async def prune(self, before: datetime) -> int:
        """Forget the attempts made before that moment, a chunk at a time; answers how many."""
        old = select(deliveries.c.id).where(deliveries.c.at < before).limit(_CHUNK)
        total = 0
        while True:
            async with self._database.async_writing() as connection:
                done = await connection.execute(delete(deliveries).where(deliveries.c.id.in_(old)))
            total += done.rowcount
            if done.rowcount < _CHUNK:
                return total

    def forget_bodies(self, run_ids: Sequence[str]) -> int:
        """Forget what was sent in these runs, which were about a person who is erased."""
        gone = 0
        with self._database.writing() as connection:
            for start in range(0, len(run_ids), _CHUNK):
                of_runs = deliveries.c.run_id.in_(run_ids[start : start + _CHUNK])
                query = update(deliveries).where(of_runs, deliveries.c.body.is_not(None)).values(body=None)
                gone += connection.execute(query).rowcount
        return gone

    # -- how an endpoint is

    async def _note(self, session: AsyncSession, endpoint_id: str, delivery: Delivery) -> None:
        this = update(endpoints).where(endpoints.c.id == endpoint_id)
        if delivery.delivered_at is not None:
            well = this.where(endpoints.c.failing_since.is_not(None))
            await session.execute(well.values(failing_since=None, failures=None))
            return
        await session.execute(
            this.values(
                failing_since=func.coalesce(
                    endpoints.c.failing_since, literal(delivery.at, endpoints.c.failing_since.type)
                ),
                failures=func.coalesce(endpoints.c.failures, 0) + 1,
            )
        )
        if delivery.status_code == _GONE:
            await self._disable(session, endpoint_id, "the receiver answered 410 Gone")
        elif self._disabling.after is not None:
            query = select(endpoints.c.failing_since, endpoints.c.failures).where(
                endpoints.c.id == endpoint_id
            )
            found = (await session.execute(query)).one_or_none()
            if found is None:  # removed meanwhile
                return
            since, failures = found
            if failures >= LEAST_FAILURES and clock.now() - since >= self._disabling.after:
                reason = f"nothing was delivered since {since:%Y-%m-%d %H:%M} UTC, in {failures} attempts"
                await self._disable(session, endpoint_id, reason)

    async def _disable(self, session: AsyncSession, endpoint_id: str, reason: str) -> None:
        query = update(endpoints).where(endpoints.c.id == endpoint_id, endpoints.c.active)
        urls = await session.scalars(
            query.values(active=False, disabled_reason=reason).returning(endpoints.c.url)
        )
        url = urls.one_or_none()
        if url is not None and self._disabling.tell is not None:
            self._disabling.tell(session, endpoint_id, url, reason)


_SELECT = select(*(deliveries.c[name] for name in Delivery.__dataclass_fields__))
