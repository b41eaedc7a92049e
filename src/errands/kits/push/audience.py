"""Who a broadcast goes to, without ever holding all of them in memory."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from sqlalchemy import ColumnElement, String, Uuid, collate, select
from sqlalchemy.orm import InstrumentedAttribute

from errands import ConfigurationError, Database

UserId = int | str
Column = ColumnElement[Any] | InstrumentedAttribute[Any]


class Audience(Protocol):
    """The users of the application, for `send_broadcast_push_notification`."""

    def users(self, role: str | None, after: UserId | None) -> AsyncIterator[Sequence[UserId]]:
        """The ids of all users, or of those with a role, in chunks of some hundreds.

        Args:
            role: None for all.
            after: where a broadcast that was cut off goes on: only ids greater than this one.

        Ids ascend, within chunks and from one to the next, as Python compares them.
        """
        ...


class SqlAudience:
    """The users in a table, read a chunk at a time by their ids; no transaction stays open between chunks.

    Args:
        database: where they are.
        id: the column of their ids (numbers, texts or UUIDs), which an index must lead.
        role: the column of their roles, or a function that makes a condition of a role.
        where: a further condition, such as `users.c.active`.
        chunk: users in one chunk, and in one run.
    """

    def __init__(
        self,
        database: Database,
        id: Column,
        *,
        role: Column | Callable[[str], ColumnElement[bool]] | None = None,
        where: ColumnElement[bool] | None = None,
        chunk: int = 500,
    ) -> None:
        if chunk < 1:
            raise ConfigurationError(f"SqlAudience(chunk={chunk}): a chunk has 1 user or more")
        self._database = database
        self._id = id
        self._role = role
        self._where = where
        self._chunk = chunk

    async def users(self, role: str | None, after: UserId | None) -> AsyncIterator[Sequence[UserId]]:
        """As `Audience.users`.

        Raises:
            ConfigurationError: a role is asked for, and nothing here tells who has it.
        """
        # Other collations than these order texts otherwise than Python does ("a-b" before "ab").
        order = self._id
        if isinstance(order.type, String) and self._database.dialect == "postgresql":
            order = collate(order, "C")
        query = select(self._id).order_by(order).limit(self._chunk)
        if self._where is not None:
            query = query.where(self._where)
        if role is not None:
            query = query.where(self._has(role))
        last: Any = after
        if isinstance(after, str) and isinstance(order.type, Uuid) and order.type.as_uuid:
            last = uuid.UUID(after)
        while True:
            page = query if last is None else query.where(order > last)
            async with self._database.async_reading() as connection:
                found = (await connection.scalars(page)).all()
            if not found:
                return
            yield [str(user) if isinstance(user, uuid.UUID) else user for user in found]
            last = found[-1]

    def _has(self, role: str) -> ColumnElement[bool]:
        if self._role is None:
            raise ConfigurationError(
                f"a broadcast to the role {role!r}: SqlAudience(role=…) must say how roles are told"
            )
        return self._role(role) if callable(self._role) else self._role == role
