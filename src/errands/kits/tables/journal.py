"""How far each import came, in SQL, moved in the very transactions that write the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Database
from errands.core import clock
from errands.kits.tables.chunk import Counts
from errands.kits.tables.errors import OvertakenImport
from errands.kits.tables.raw import Reason
from errands.kits.tables.tables import imports, refusals


@dataclass(frozen=True, slots=True)
class Record:
    """An import that writes. `position` is the number of the last row that was written; `result` is None
    until it is over."""

    id: str
    name: str
    run_id: str
    asked_by: str | None
    source: str | None
    sha256: str
    state: str
    position: int
    counts: Counts
    result: dict[str, Any] | None
    created_at: datetime


class Journal:
    """Records of imports.

    Args:
        database: the one that the rows are written to.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, import_id: str) -> Record | None:
        """The import with this id; None where nothing of it was written yet."""
        query = select(*(imports.c[name] for name in Record.__dataclass_fields__))
        async with self._database.async_reading() as connection:
            found = (await connection.execute(query.where(imports.c.id == import_id))).mappings().first()
        return None if found is None else Record(**{**found, "counts": Counts(**found["counts"])})

    async def begin(self, record: Record) -> None:
        """Note that it is about to write; or, with a result, that it is over and has written nothing.

        Raises:
            OvertakenImport: another attempt has noted it meanwhile.
        """
        values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
        values |= {"counts": record.counts.as_json(), "updated_at": record.created_at}
        try:
            async with self._database.async_writing() as connection:
                await connection.execute(insert(imports).values(values))
        except IntegrityError as error:
            raise OvertakenImport(f"import {record.id}: another attempt has begun to write it") from error

    async def advance(
        self,
        session: AsyncSession,
        import_id: str,
        before: int,
        after: int,
        counts: Counts,
        refused: Sequence[tuple[int, Sequence[Reason]]],
    ) -> None:
        """Note, with what `session` writes, that it has come from row `before` to row `after`.

        Raises:
            OvertakenImport: it is elsewhere by now; `session` must be rolled back.
        """
        done: Any = await session.execute(
            update(imports)
            .where(imports.c.id == import_id, imports.c.position == before, imports.c.state == "applying")
            .values(position=after, counts=counts.as_json(), updated_at=clock.now())
        )
        if done.rowcount != 1:
            raise OvertakenImport(f"import {import_id}: another attempt has gone on after row {before}")
        if refused:
            rows = [
                {"import_id": import_id, "row": number, "reasons": [reason.as_json() for reason in reasons]}
                for number, reasons in refused
            ]
            await session.execute(insert(refusals), rows)

    async def refused(self, import_id: str) -> dict[int, list[Reason]]:
        """Rows that were refused while they were written."""
        query = select(refusals.c.row, refusals.c.reasons).where(refusals.c.import_id == import_id)
        async with self._database.async_reading() as connection:
            rows = (await connection.execute(query.order_by(refusals.c.row))).all()
        return {number: [Reason(**reason) for reason in reasons] for number, reasons in rows}

    async def finish(self, import_id: str, state: str, result: dict[str, Any]) -> None:
        """Note that it is over, and what it came to."""
        async with self._database.async_writing() as connection:
            await connection.execute(
                update(imports)
                .where(imports.c.id == import_id)
                .values(state=state, result=result, updated_at=clock.now())
            )

    async def prune(self, before: datetime) -> int:
        """Forget imports that began before that moment, with the values of refused rows in their results;
        answers how many. One that is still at work is kept."""
        async with self._database.async_writing() as connection:
            found = await connection.execute(
                delete(imports).where(imports.c.created_at < before, imports.c.state != "applying")
            )
        return found.rowcount
