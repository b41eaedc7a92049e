"""The seam between an import and what it writes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from errands.kits.tables.checking import Key


class Update(NamedTuple):
    """New values for the row with this key; fields that are not named stay as they are."""

    key: Key
    values: Mapping[str, Any]


class Target(Protocol):
    """Where rows are written to. All calls of a chunk share one session, whose transaction also notes that
    the chunk was applied: whatever is written through it is written once.

    `SqlTarget` is ready-made. Write your own where a row is more than a row of a table, or where something
    follows from it: `task.delay_on_commit(session, …)` in `apply` sends with the chunk.
    """

    async def count(self, session: AsyncSession) -> int:
        """How many rows there are in all; the threshold of changes is a share of it."""
        ...

    async def existing(self, session: AsyncSession, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, Any]]:
        """The present values of the rows that have one of these keys, by key. A row of the file that has the
        same values is unchanged, and is not written."""
        ...

    async def apply(
        self, session: AsyncSession, creates: Sequence[Mapping[str, Any]], updates: Sequence[Update]
    ) -> None:
        """Write. Must not commit.

        An `IntegrityError` or `DataError` refuses the row that causes it, which is found by writing fewer
        rows at a time; so `apply` may be called again after its changes were rolled back.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sorted:
    """What is to be done with the rows of a chunk. `refused` are numbers of rows, and why."""

    creates: list[Mapping[str, Any]]
    updates: list[Update]
    unchanged: int
    refused: list[tuple[int, str]]
