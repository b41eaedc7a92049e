"""One chunk of good rows, compared with what is there and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from sqlalchemy.exc import DataError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core.secrets import scrub
from errands.kits.tables.cells import shortened
from errands.kits.tables.checking import Row
from errands.kits.tables.raw import Reason
from errands.kits.tables.target import Target, Update

Mode = Literal["upsert", "create", "update"]
_REFUSING = (IntegrityError, DataError, StatementError, OverflowError)


@dataclass(slots=True)
class Counts:
    """How many rows: of the file, and of each fate. `duplicates` have the key of an earlier row."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: int = 0
    duplicates: int = 0

    @property
    def taken(self) -> int:
        """Rows that are in the table as the file has them."""
        return self.created + self.updated + self.unchanged

    def add(self, other: Counts) -> None:
        """Count what `other` counted as well."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def as_json(self) -> dict[str, int]:
        """As it is kept and shown."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(slots=True)
class Outcome:
    """What a chunk came to; `refused` are its rows that could not be written."""

    counts: Counts = field(default_factory=Counts)
    refused: list[tuple[Row, Reason]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Count what `other` came to as well."""
        self.counts.add(other.counts)
        self.refused += other.refused


async def work(
    session: AsyncSession,
    target: Target,
    rows: Sequence[Row],
    *,
    mode: Mode,
    secret: frozenset[str],
    write: bool = True,
) -> Outcome:
    """Compare the rows with those that are there, and write the differences.

    What the database refuses is rolled back to before these rows, and done again in halves, until the row is
    found that it refuses.

    Args:
        session: in a transaction; it is not committed.
        target: where the rows belong.
        rows: with different keys.
        mode: "upsert", or what alone may happen.
        secret: fields whose values no reason may show.
        write: False only compares.
    """
    if not rows:
        return Outcome()
    try:
        async with session.begin_nested():
            return await _work(session, target, rows, mode, write)
    except _REFUSING as error:
        if not _is_the_rows(error):
            raise
        if len(rows) == 1:
            hidden = [str(rows[0].values[name]) for name in secret if rows[0].values.get(name)]
            reason = Reason(None, None, scrub(_told(error), hidden))
            return Outcome(Counts(refused=1), [(rows[0], reason)])
    half = len(rows) // 2
    found = await work(session, target, rows[:half], mode=mode, secret=secret, write=write)
    found.add(await work(session, target, rows[half:], mode=mode, secret=secret, write=write))
    return found


async def _work(
    session: AsyncSession, target: Target, rows: Sequence[Row], mode: Mode, write: bool
) -> Outcome:
    existing = await target.existing(session, [row.key for row in rows])
    creates: list[Mapping[str, Any]] = []
    updates: list[Update] = []
    found = Outcome()
    for row in rows:
        before = existing.get(row.key)
        if before is None:
            if mode == "update":
                found.refused.append((row, Reason(None, None, f"there is no row {_key(row)}")))
            else:
                creates.append(row.values)
            continue
        if mode == "create":
            found.refused.append((row, Reason(None, None, f"there is a row {_key(row)} already")))
            continue
        changed = {
            name: row.values[name]
            for name in row.values
            if name in row.given and not (name in before and _same(row.values[name], before[name]))
        }
        if changed:
            updates.append(Update(row.key, changed))
        else:
            found.counts.unchanged += 1
    if write and (creates or updates):
        await target.apply(session, creates, updates)
    found.counts.created, found.counts.updated = len(creates), len(updates)
    found.counts.refused = len(found.refused)
    return found


def _same(new: Any, old: Any) -> bool:
    if isinstance(new, Enum) and not isinstance(old, Enum):
        new = new.value
    if (
        isinstance(new, datetime)
        and isinstance(old, datetime)
        and (new.tzinfo is None) != (old.tzinfo is None)
    ):
        # What has no time zone is UTC, as in `errands.store.types.UtcDateTime`.
        new, old = (moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in (new, old))
    if isinstance(new, Decimal) != isinstance(old, Decimal) and _is_number(new) and _is_number(old):
        new, old = Decimal(str(new)), Decimal(str(old))
    return bool(new == old)


def _is_number(value: Any) -> bool:
    return isinstance(value, Decimal | float | int) and not isinstance(value, bool)


def _key(row: Row) -> str:
    return ", ".join(shortened(str(part), 40) for part in row.key)


def _is_the_rows(error: BaseException) -> bool:
    """Whether it is a row's values that the database does not take, rather than the database that is away."""
    return type(error) is StatementError or isinstance(error, IntegrityError | DataError | OverflowError)


def _told(error: BaseException) -> str:
    """What the database says, in one line: further lines of PostgreSQL's repeat the values."""
    cause = getattr(error, "orig", None) or error
    first = next(iter(str(cause).splitlines()), "") or type(cause).__name__
    return f"the database refuses it: {shortened(first, 200)}"
