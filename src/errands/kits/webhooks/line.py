"""What waits for its turn at an endpoint that wants its events in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Database
from errands.kits.webhooks.tables import deliveries, line


@dataclass(frozen=True, slots=True)
class Waiting:
    """A webhook that waits. `attempts` were made so far, the last one by `run_id`."""

    id: str
    endpoint_id: str
    position: str
    event: str
    body: str
    attempts: int = 0
    next_try_at: datetime | None = None
    run_id: str | None = None


class Line:
    """The lines of all endpoints, in SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, waiting: Waiting) -> None:
        """Let it wait behind those that were asked for before it.

        Nothing happens if it is there already, or was: the run that brings it may come twice. Nor does
        anything wait for an endpoint that was removed meanwhile.
        """
        tried = select(deliveries.c.id).where(deliveries.c.message_id == waiting.id).limit(1)
        try:
            async with self._database.async_writing() as connection:
                # In this order: what has left the line is on record before it leaves.
                await connection.execute(insert(line).values(asdict(waiting)))
                if await connection.scalar(tried):
                    await connection.execute(delete(line).where(line.c.id == waiting.id))
        except IntegrityError:  # it waits, or there is no such endpoint
            return

    @staticmethod
    async def add_with(session: AsyncSession, waiting: Waiting) -> None:
        """Let it wait when `session` commits. It must be new."""
        await session.execute(insert(line).values(asdict(waiting)))

    async def first(self, endpoint_id: str) -> Waiting | None:
        """Whose turn it is."""
        query = (
            select(line)
            .where(line.c.endpoint_id == endpoint_id)
            .order_by(line.c.position, line.c.id)
            .limit(1)
        )
        async with self._database.async_reading() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else Waiting(**row)

    async def endpoints(self) -> Sequence[str]:
        """The ids of the endpoints where something waits."""
        async with self._database.async_reading() as connection:
            return (await connection.scalars(select(line.c.endpoint_id).distinct())).all()

    async def put_off(self, waiting: Waiting, *, until: datetime, run_id: str) -> None:
        """An attempt of this run failed; the next one comes `until` then."""
        async with self._database.async_writing() as connection:
            await connection.execute(
                update(line)
                .where(line.c.id == waiting.id)
                .values(attempts=waiting.attempts + 1, next_try_at=until, run_id=run_id)
            )

    async def leave(self, waiting: Waiting) -> None:
        """It was delivered, or given up."""
        async with self._database.async_writing() as connection:
            await connection.execute(delete(line).where(line.c.id == waiting.id))
