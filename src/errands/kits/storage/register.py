"""The register of stored files in SQL: whose they are, who refers to them, which may go.

Each function is one step on a connection that is in a transaction; `Files` puts them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from errands.core import clock
from errands.kits.storage.errors import FileInUse, QuotaExceeded, StorageUnavailable, StoredFileNotFound
from errands.kits.storage.tables import files, references

_REFERRED = exists().where(references.c.key == files.c.key)


@dataclass(frozen=True, slots=True)
class Reserved:
    """Room for a file that is about to be written: the bytes that its owner has left (None: no quota), and
    the size of the file that it replaces (None: there is none)."""

    left: int | None
    before: int | None


def reserve(
    connection: Connection, key: str, owner: str | None, size: int | None, quota: int | None
) -> Reserved:
    """Note that `key` is about to be written, with `size` bytes where that is known.

    Raises:
        QuotaExceeded: the owner has not as much left.
    """
    used = _used_by_others(connection, key, owner) if quota is not None else 0
    if owner is not None and quota is not None and (used >= quota or used + (size or 0) > quota):
        raise QuotaExceeded(owner, used, quota, size)
    row: dict[str, Any] = {
        "key": key, "owner": owner, "size": size or 0, "touched_at": clock.now(), "deleting": False,
    }  # fmt: skip
    found = _added(connection, row)
    if found is None:
        return Reserved(None if quota is None else quota - used, None)
    # One that was about to be deleted is whole no longer: whoever deletes it looks again, and leaves it.
    before = found.size if found.stored_at is not None and not found.deleting else None
    if before is None:
        row["stored_at"] = None
    row["size"] = max(before or 0, size or 0)
    if owner is None:
        del row["owner"]
    connection.execute(update(files).where(files.c.key == key).values(row))
    return Reserved(None if quota is None else quota - used, before)


def store(
    connection: Connection, key: str, size: int, owner: str | None, referrer: str | None, quota: int | None
) -> None:
    """Note that `key` is written and has `size` bytes.

    Raises:
        QuotaExceeded: others of the owner's were written meanwhile, and it does not fit any more.
        StorageUnavailable: it took so long that it was taken for abandoned.
    """
    used = _used_by_others(connection, key, owner) if quota is not None else 0
    found = _locked(connection, key)
    if found is None or found.deleting:
        raise StorageUnavailable(f"the file {key} was swept away while it was written; put it again")
    # What replaces a file has replaced it by now, and stays.
    if owner is not None and quota is not None and used + size > quota and found.stored_at is None:
        raise QuotaExceeded(owner, used, quota, size)
    now = clock.now()
    connection.execute(
        update(files).where(files.c.key == key).values(size=size, stored_at=now, touched_at=now)
    )
    if referrer is not None:
        _refer(connection, key, referrer)


def give_up(connection: Connection, key: str, before: int | None) -> None:
    """Give back the room that was reserved for what was not written. The next sweep removes the rest."""
    values = {"size": 0} if before is None else {"size": before}
    never = files.c.stored_at.is_(None) if before is None else files.c.stored_at.is_not(None)
    connection.execute(update(files).where(files.c.key == key, never, ~files.c.deleting).values(values))


def touch(connection: Connection, key: str) -> None:
    """Say that the file is still being written."""
    connection.execute(update(files).where(files.c.key == key).values(touched_at=clock.now()))


def keep(connection: Connection, key: str, referrer: str, owner: str | None, size: int | None) -> bool:
    """Note that `referrer` needs the file. False: it is not in the register, and its `size` is not given.

    Raises:
        StoredFileNotFound: it is being deleted, or was never whole.
    """
    now = clock.now()
    found = _locked(connection, key)
    if found is None:
        if size is None:
            return False
        row = {
            "key": key,
            "owner": owner,
            "size": size,
            "stored_at": now,
            "touched_at": now,
            "deleting": False,
        }
        found = _added(connection, row)
    if found is not None and (found.deleting or found.stored_at is None):
        raise StoredFileNotFound(f"the stored file {key} is not there, or is being deleted: put it again")
    values = {"touched_at": now} if owner is None else {"touched_at": now, "owner": owner}
    connection.execute(update(files).where(files.c.key == key).values(values))
    _refer(connection, key, referrer)
    return True


def release(connection: Connection, referrer: str) -> list[str]:
    """Note that `referrer` needs none of its files any more. The keys of those that nobody needs now."""
    mine = select(references.c.key).where(references.c.referrer == referrer)
    others = exists().where(references.c.key == files.c.key, references.c.referrer != referrer)
    query = select(files.c.key, others.label("needed")).where(files.c.key.in_(mine)).order_by(files.c.key)
    held = connection.execute(query.with_for_update(of=files)).all()
    connection.execute(update(files).where(files.c.key.in_(mine)).values(touched_at=clock.now()))
    connection.execute(delete(references).where(references.c.referrer == referrer))
    return [row.key for row in held if not row.needed]


def candidates(connection: Connection, before: datetime, after_key: str, limit: int) -> Sequence[str]:
    """Keys, in order, of files that nobody refers to and nobody touched since `before`."""
    query = select(files.c.key).where(files.c.key > after_key, _may_go(before))
    return connection.scalars(query.order_by(files.c.key).limit(limit)).all()


def mark(connection: Connection, keys: Sequence[str], before: datetime) -> list[str]:
    """Mark those of `keys` that may still go: from here on nobody can refer to them. Returns them."""
    locked = select(files.c.key).where(files.c.key.in_(keys)).order_by(files.c.key)
    held = list(connection.scalars(locked.with_for_update(skip_locked=True)))
    # Asked anew, with the rows held: somebody may have kept one a moment ago.
    free = list(connection.scalars(select(files.c.key).where(files.c.key.in_(held), _may_go(before))))
    connection.execute(update(files).where(files.c.key.in_(free)).values(deleting=True))
    return free


def mark_one(connection: Connection, key: str) -> bool:
    """Mark one file, however new it is. False: it is not in the register.

    Raises:
        FileInUse: somebody refers to it.
    """
    if _locked(connection, key) is None:
        return False
    who = connection.scalars(select(references.c.referrer).where(references.c.key == key).limit(3)).all()
    if who:
        raise FileInUse(f"{', '.join(who)} refer(s) to the stored file {key}: release it there first")
    connection.execute(update(files).where(files.c.key == key).values(deleting=True))
    return True


def mark_all_of(connection: Connection, owner: str) -> list[str]:
    """Mark every file of the owner, whoever refers to it. Returns their keys."""
    mine = select(files.c.key).where(files.c.owner == owner)
    keys = list(connection.scalars(mine.order_by(files.c.key).with_for_update()))
    connection.execute(delete(references).where(references.c.key.in_(mine)))
    connection.execute(update(files).where(files.c.owner == owner).values(deleting=True))
    return keys


def hold_marked(connection: Connection, key: str) -> int | None:
    """Hold the row of a marked file to the end of the transaction. Its size; None: somebody else deleted it,
    or is writing it anew."""
    found = _locked(connection, key)
    return int(found.size) if found is not None and found.deleting else None


def forget(connection: Connection, key: str) -> None:
    """Take the file out of the register."""
    connection.execute(delete(files).where(files.c.key == key))


def usage(connection: Connection, owner: str) -> int:
    """Bytes of the owner's files, and those reserved for what is being written."""
    total = connection.scalar(select(func.sum(files.c.size)).where(files.c.owner == owner))
    return int(total or 0)


def referrers(connection: Connection, key: str) -> Sequence[str]:
    """Who refers to the file, in order."""
    query = select(references.c.referrer).where(references.c.key == key).order_by(references.c.referrer)
    return connection.scalars(query).all()


def _may_go(before: datetime) -> Any:
    return or_(files.c.deleting, files.c.touched_at < before) & ~_REFERRED


def _used_by_others(connection: Connection, key: str, owner: str | None) -> int:
    """Bytes of the owner's other files; no other transaction counts or changes them until ours ends."""
    if owner is None:
        return 0
    if connection.dialect.name == "postgresql":  # on SQLite one transaction writes at a time
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended('errands files ' || :owner, 0))"),
            {"owner": owner},
        )
    query = select(func.sum(files.c.size)).where(files.c.owner == owner, files.c.key != key)
    return int(connection.scalar(query) or 0)


def _locked(connection: Connection, key: str) -> Row[Any] | None:
    return connection.execute(select(files).where(files.c.key == key).with_for_update()).first()


def _added(connection: Connection, row: dict[str, Any]) -> Row[Any] | None:
    """Add a row. If there is one already, return that, held."""
    while True:
        if connection.scalar(_unless_there(connection, files, row).returning(files.c.key)) is not None:
            return None
        found = _locked(connection, row["key"])
        if found is not None:
            return found


def _refer(connection: Connection, key: str, referrer: str) -> None:
    row = {"key": key, "referrer": referrer, "at": clock.now()}
    connection.execute(_unless_there(connection, references, row))


def _unless_there(connection: Connection, table: Any, row: dict[str, Any]) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).values(row).on_conflict_do_nothing()
