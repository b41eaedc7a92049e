"""Notifications in SQL, as functions of a connection: within a transaction of the caller's, with asyncio
(`await connection.run_sync(boxes.add, …)`) or without."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from errands.core import clock
from errands.kits.push.notice import Notice
from errands.kits.push.tables import boxes, notifications

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "errands notification")
# Values in one statement: SQLite takes 32,766, and two of them may belong to one user.
CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Notification:
    """A notification of one user. `number` counts theirs, from 1, without gaps but for what was deleted or
    tried in vain; a higher one was committed later."""

    id: str
    user_id: str
    number: int
    kind: str
    title: str
    message: str
    data: dict[str, Any]
    created_at: datetime
    read_at: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "id": self.id, "number": self.number, "kind": self.kind, "title": self.title,
            "message": self.message, "data": self.data, "created_at": self.created_at.isoformat(),
            "read_at": self.read_at.isoformat() if self.read_at else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` did: the id of each user's notification, also of those that were there before; which users
    got theirs now; and how many turned the kind off."""

    ids: Mapping[str, str]
    new: Sequence[str]
    muted: int


def notification_id(source: str, user: str) -> str:
    """The id of what `source` (a run's id) tells a user: the same each time."""
    return str(uuid.uuid5(_NAMESPACE, f"{len(source)} {source} {user}"))


def add(connection: Connection, notice: Notice, users: Sequence[str], source: str) -> Added:
    """Put a notification into each user's box, unless `source` did so before or the user wants none.

    Args:
        connection: in a transaction; others who notify the same users wait for its end.
        users: up to `CHUNK` ids, each once.
        source: what the notification is about, once for each user: a run's id.
    """
    ids = {user: notification_id(source, user) for user in users}
    known = set(
        connection.scalars(select(notifications.c.user_id).where(notifications.c.id.in_(list(ids.values()))))
    )
    # In one order, whoever asks: two that notify the same users must not each wait for the other.
    fresh = sorted(user for user in users if user not in known)
    muted = _muted(connection, fresh, notice.kind)
    fresh = [user for user in fresh if user not in muted]
    numbers = _next_numbers(connection, fresh)
    now = clock.now()
    rows = [
        {
            "id": ids[user], "user_id": user, "number": numbers[user], "kind": notice.kind,
            "title": notice.title, "message": notice.message, "data": notice.data or None, "created_at": now,
        }
        for user in fresh
    ]  # fmt: skip
    if rows:
        # Another delivery of the same run may have come first while we waited for the boxes.
        connection.execute(_dialect(connection).insert(notifications).on_conflict_do_nothing(), rows)
    return Added({user: ids[user] for user in users if user not in muted}, fresh, len(muted))


def listed(
    connection: Connection, user: str, *, before: int | None = None, limit: int = 50, unread: bool = False
) -> list[Notification]:
    """A user's notifications, the newest first; `before` a number, for the next page."""
    query = select(*_COLUMNS).where(notifications.c.user_id == user)
    if before is not None:
        query = query.where(notifications.c.number < before)
    if unread:
        query = query.where(notifications.c.read_at.is_(None))
    return _read(connection, query.order_by(notifications.c.number.desc()).limit(limit))


def since(connection: Connection, user: str, number: int, limit: int = 100) -> list[Notification]:
    """A user's notifications after that number, the oldest first."""
    query = select(*_COLUMNS).where(notifications.c.user_id == user, notifications.c.number > number)
    return _read(connection, query.order_by(notifications.c.number).limit(limit))


def unread(connection: Connection, user: str) -> int:
    """How many a user has not read."""
    query = select(func.count()).where(notifications.c.user_id == user, notifications.c.read_at.is_(None))
    return connection.scalar(query.select_from(notifications)) or 0


def last_numbers(connection: Connection, users: Sequence[str]) -> dict[str, int]:
    """The number of each user's newest notification; 0 for who never had one."""
    query = select(boxes.c.user_id, boxes.c.number).where(boxes.c.user_id.in_(users))
    found = {row.user_id: row.number for row in connection.execute(query)}
    return {user: found.get(user, 0) for user in users}


def mark_read(connection: Connection, user: str, notification: str | None = None) -> int | None:
    """Note that a user has read one notification, or (None) all. Returns how many were unread; None where
    the user has no such notification."""
    mine = notifications.c.user_id == user
    if notification is not None:
        mine &= notifications.c.id == notification
    done = connection.execute(
        update(notifications).where(mine, notifications.c.read_at.is_(None)).values(read_at=clock.now())
    ).rowcount
    if not done and notification is not None:
        there = connection.scalar(select(notifications.c.id).where(mine))
        return None if there is None else 0
    return done


def muted_kinds(connection: Connection, user: str) -> list[str]:
    """The kinds that a user turned off."""
    found = connection.scalar(select(boxes.c.muted).where(boxes.c.user_id == user))
    return sorted(found or ())


def turn(connection: Connection, user: str, kind: str, *, on: bool) -> None:
    """Let a user get notifications of that kind, or none of them any more."""
    statement = _dialect(connection).insert(boxes).values(user_id=user, number=0)
    connection.execute(statement.on_conflict_do_nothing())
    query = select(boxes.c.muted).where(boxes.c.user_id == user).with_for_update()
    before = set(connection.scalar(query) or ())
    after = sorted(before - {kind} if on else before | {kind})
    connection.execute(update(boxes).where(boxes.c.user_id == user).values(muted=after or None))


def prune(connection: Connection, before: datetime, *, limit: int = CHUNK) -> int:
    """Delete up to `limit` notifications that were read and are older than `before`. Returns how many.

    Call it, each time in a transaction of its own, until it returns less than `limit`."""
    old = (
        select(notifications.c.id)
        .where(notifications.c.read_at.is_not(None), notifications.c.created_at < before)
        .limit(limit)
    )
    return connection.execute(delete(notifications).where(notifications.c.id.in_(old))).rowcount


def erase(connection: Connection, user: str) -> int:
    """Delete all of a user's notifications, and what they turned off. Returns how many notifications."""
    connection.execute(delete(boxes).where(boxes.c.user_id == user))
    return connection.execute(delete(notifications).where(notifications.c.user_id == user)).rowcount


_COLUMNS = tuple(notifications.c[name] for name in Notification.__dataclass_fields__)


def _read(connection: Connection, query: Any) -> list[Notification]:
    return [
        Notification(**{**row, "data": row["data"] or {}}) for row in connection.execute(query).mappings()
    ]


def _muted(connection: Connection, users: Sequence[str], kind: str) -> set[str]:
    if not users:
        return set()
    query = select(boxes.c.user_id, boxes.c.muted).where(
        boxes.c.user_id.in_(users), boxes.c.muted.is_not(None)
    )
    return {user for user, kinds in connection.execute(query) if kind in kinds}


def _next_numbers(connection: Connection, users: Sequence[str]) -> dict[str, int]:
    if not users:
        return {}
    statement = _dialect(connection).insert(boxes)
    statement = statement.on_conflict_do_update(
        index_elements=["user_id"], set_={"number": boxes.c.number + 1}
    ).returning(boxes.c.user_id, boxes.c.number)
    rows = connection.execute(statement, [{"user_id": user, "number": 1} for user in users])
    return {row.user_id: row.number for row in rows}


def _dialect(connection: Connection) -> Any:
    return postgresql if connection.dialect.name == "postgresql" else sqlite
