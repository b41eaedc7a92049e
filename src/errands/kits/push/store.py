"""The users' boxes of notifications, for asyncio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from errands import Database
from errands.kits.push import boxes
from errands.kits.push.audience import UserId
from errands.kits.push.boxes import Added, Notification
from errands.kits.push.errors import NotificationNotFound
from errands.kits.push.notice import Notice

P = ParamSpec("P")
T = TypeVar("T")


class NotificationStore:
    """What each user was told, and has read. For code without asyncio, `push.boxes` has the same as
    functions of a connection.

    Args:
        database: gives the database when it is first needed.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database

    async def add(self, notice: Notice, users: Sequence[str], source: str) -> Added:
        """Put a notification into each user's box, a thousand boxes in one transaction: see `boxes.add`."""
        ids: dict[str, str] = {}
        new: list[str] = []
        muted = 0
        for start in range(0, len(users), boxes.CHUNK):
            chunk = list(users[start : start + boxes.CHUNK])
            added = await self._write(boxes.add, notice, chunk, source)
            ids.update(added.ids)
            new += added.new
            muted += added.muted
        return Added(ids, new, muted)

    async def list(
        self, user: UserId, *, before: int | None = None, limit: int = 50, unread: bool = False
    ) -> Sequence[Notification]:
        """A user's notifications, the newest first; a page goes on `before` the last one's number."""
        return await self._read(boxes.listed, str(user), before=before, limit=limit, unread=unread)

    async def since(self, user: UserId, number: int, limit: int = 100) -> Sequence[Notification]:
        """A user's notifications after that number, the oldest first."""
        return await self._read(boxes.since, str(user), number, limit)

    async def unread(self, user: UserId) -> int:
        """How many a user has not read."""
        return await self._read(boxes.unread, str(user))

    async def last_number(self, user: UserId) -> int:
        """The number of a user's newest notification; 0 for who never had one."""
        return (await self.last_numbers([str(user)]))[str(user)]

    async def last_numbers(self, users: Sequence[str]) -> dict[str, int]:
        """The same of many users."""
        found: dict[str, int] = {}
        for start in range(0, len(users), boxes.CHUNK):
            found |= await self._read(boxes.last_numbers, users[start : start + boxes.CHUNK])
        return found

    async def mark_read(self, user: UserId, notification: str) -> None:
        """Note that a user has read it.

        Raises:
            NotificationNotFound: the user has no such notification.
        """
        if await self._write(boxes.mark_read, str(user), notification) is None:
            raise NotificationNotFound(f"no notification {notification[:64]!r}")

    async def mark_all_read(self, user: UserId) -> int:
        """Note that a user has read all. Returns how many were unread."""
        return await self._write(boxes.mark_read, str(user)) or 0

    async def muted_kinds(self, user: UserId) -> Sequence[str]:
        """The kinds that a user turned off."""
        return await self._read(boxes.muted_kinds, str(user))

    async def turn_off(self, user: UserId, kind: str) -> None:
        """Tell a user nothing of that kind any more."""
        await self._write(boxes.turn, str(user), kind, on=False)

    async def turn_on(self, user: UserId, kind: str) -> None:
        """Tell a user what is of that kind again."""
        await self._write(boxes.turn, str(user), kind, on=True)

    async def prune(self, before: datetime) -> int:
        """Delete what was read and is older than that, a thousand in one transaction. Returns how many."""
        total = 0
        while deleted := await self._write(boxes.prune, before):
            total += deleted
        return total

    async def _read(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async with self._database().async_reading() as connection:
            return await connection.run_sync(function, *args, **kwargs)

    async def _write(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        async with self._database().async_writing() as connection:
            return await connection.run_sync(function, *args, **kwargs)
