"""Stored files with an owner, a quota and those who refer to them; and a sweep of what nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from errands import Database
from errands.core import clock
from errands.kits.storage import register
from errands.kits.storage.errors import FileTooLarge, QuotaExceeded, StorageError, StoredFileNotFound
from errands.kits.storage.keys import check_key, new_key
from errands.kits.storage.provider import Storage, StoredFile

T = TypeVar("T")
Quota = int | Callable[[str], int | None] | None

SHORTEST_GRACE = timedelta(minutes=10)
_RENEWED = 60.0  # seconds between two signs of life of a writer: well within the shortest grace

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did: files that it deleted, their bytes, those that could not be deleted now, and pieces
    that killed writers had left."""

    files: int
    bytes: int
    failed: int
    pieces: int


class Files:
    """Puts files into a storage and remembers in SQL whose they are and who refers to them.

    A task asks for it by type (`*, files: Files`). What was put here and nobody refers to goes with a
    `sweep`; what was put into the storage past it stays, until `keep` makes it known.

    Args:
        storage: where the bytes are.
        database: where the register is; `session`s given to the methods must be of the same.
        quota: bytes for each owner; a function tells them by owner (None: no limit).
    """

    def __init__(self, storage: Storage, database: Database, *, quota: Quota = None) -> None:
        self.storage = storage
        self._database = database
        self._quota = quota

    async def put(
        self,
        data: bytes | Path,
        *,
        content_type: str,
        owner: str | None = None,
        referrer: str | None = None,
        suffix: str = "",
        key: str | None = None,
    ) -> StoredFile:
        """`Storage.put`, counted for `owner` and, with `referrer`, kept for it from the start.

        Not inside of a database transaction of your own: on SQLite it would wait for it. Put first, then
        `keep` with the rows that name the key.

        Raises:
            QuotaExceeded: it does not fit; nothing is kept.
        """
        size = len(data) if isinstance(data, bytes) else (await asyncio.to_thread(data.stat)).st_size

        async def write(key: str, _: int | None) -> StoredFile:
            return await self.storage.put(data, content_type=content_type, key=key)

        return await self._put(write, key or new_key(suffix), owner, referrer, size)

    async def put_stream(
        self,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        owner: str | None = None,
        referrer: str | None = None,
        suffix: str = "",
        key: str | None = None,
        limit: int | None = None,
    ) -> StoredFile:
        """`Storage.put_stream`, counted as with `put`; it ends where the quota does.

        Raises:
            QuotaExceeded: the owner has no more left. FileTooLarge: it has more than `limit` bytes.
        """

        async def write(key: str, left: int | None) -> StoredFile:
            most = min((bound for bound in (limit, left) if bound is not None), default=None)
            try:
                return await self.storage.put_stream(chunks, content_type=content_type, key=key, limit=most)
            except FileTooLarge as exc:
                quota = self._quota_of(owner)
                if owner is None or quota is None or left is None or most == limit:
                    raise
                raise QuotaExceeded(owner, quota - left, quota, None) from exc

        return await self._put(write, key or new_key(suffix), owner, referrer, None)

    async def keep(
        self, key: str, *, referrer: str, owner: str | None = None, session: AsyncSession | None = None
    ) -> None:
        """Note that `referrer` ("certificate:17") needs the file: no sweep takes it. Twice is once.

        Args:
            owner: whom it counts for from now on; without it that stays as it is.
            session: to do it with your own rows, in one commit.

        Raises:
            StoredFileNotFound: there is no such file, or it is being deleted.
        """
        check_key(key)
        if not await self._do(session, register.keep, key, referrer, owner, None):
            size = (await self.storage.info(key)).size
            await self._do(session, register.keep, key, referrer, owner, size)

    def keep_in(self, session: Session, key: str, *, referrer: str, owner: str | None = None) -> None:
        """`keep` for code without asyncio.

        Raises:
            StoredFileNotFound: there is no such file, it was not put here, or it is being deleted.
        """
        if not register.keep(session.connection(), check_key(key), referrer, owner, None):
            raise StoredFileNotFound(f"there is no stored file {key} that was put with `Files.put`")

    async def release(self, referrer: str, *, session: AsyncSession | None = None) -> list[str]:
        """Note that `referrer` is gone. Returns the keys that nobody refers to any more; the sweep takes them
        after its grace period, or `delete` now."""
        return await self._do(session, register.release, referrer)

    def release_in(self, session: Session, referrer: str) -> list[str]:
        """`release` for code without asyncio."""
        return register.release(session.connection(), referrer)

    async def usage(self, owner: str) -> int:
        """Bytes of the owner's files, those included that no sweep has taken yet."""
        async with self._database.async_reading() as connection:
            return await connection.run_sync(register.usage, owner)

    async def referrers(self, key: str) -> list[str]:
        """Who refers to the file, in order."""
        async with self._database.async_reading() as connection:
            return list(await connection.run_sync(register.referrers, check_key(key)))

    async def delete(self, key: str) -> None:
        """Delete the file now. One that is not there is no error.

        Raises:
            FileInUse: somebody refers to it.
        """
        if await self._do(None, register.mark_one, check_key(key)):
            await self._remove(key)
        else:
            await self.storage.delete(key)

    async def erase(self, owner: str) -> int:
        """Delete every file of the owner now, whoever refers to it. Tells how many."""
        keys = await self._do(None, register.mark_all_of, owner)
        for key in keys:
            await self._remove(key)
        return len(keys)

    def erase_in(self, session: Session, owner: str) -> int:
        """`erase` for code without asyncio: nobody can refer to them any more, and the next sweep deletes
        them, without a grace."""
        return len(register.mark_all_of(session.connection(), owner))

    async def sweep(self, *, older_than: timedelta = timedelta(days=1), batch: int = 500) -> Swept:
        """Delete the files that nobody has referred to for `older_than`, and what killed writers left.

        A file that is being written or was just put is never taken, nor one that somebody begins to refer to
        meanwhile. A sweep that is killed is gone on with by the next; several at once do no harm.

        Args:
            older_than: the grace period, ten minutes or more.
            batch: files that are looked for at once.

        Raises:
            ValueError: a shorter grace period, or an empty batch.
            StorageError, OSError: the storage let none be deleted.
        """
        if older_than < SHORTEST_GRACE:
            raise ValueError(
                f"older_than={older_than}: below {SHORTEST_GRACE} it could take what is just put"
            )
        if batch < 1:
            raise ValueError(f"batch={batch}: look for 1 file or more at once")
        before = clock.now() - older_than
        sizes: list[int] = []
        errors: list[Exception] = []
        last = ""
        while True:
            async with self._database.async_reading() as connection:
                keys = await connection.run_sync(register.candidates, before, last, batch)
            if not keys:
                break
            last = keys[-1]
            for key in await self._do(None, register.mark, keys, before):
                try:
                    size = await self._remove(key)
                except (StorageError, OSError) as exc:
                    _log.warning(
                        "a stored file cannot be deleted; the next sweep tries again", key=key, error=str(exc)
                    )
                    errors.append(exc)
                else:
                    sizes += [] if size is None else [size]
        if errors and not sizes:
            raise errors[-1]
        pieces = await self.storage.clean(older_than)
        return Swept(len(sizes), sum(sizes), len(errors), pieces)

    async def _put(
        self,
        write: Callable[[str, int | None], Awaitable[StoredFile]],
        key: str,
        owner: str | None,
        referrer: str | None,
        size: int | None,
    ) -> StoredFile:
        quota = self._quota_of(owner)
        reserved = await self._do(None, register.reserve, check_key(key), owner, size, quota)
        try:
            async with self._renewed(key):
                file = await write(key, reserved.left)
            try:
                await self._do(None, register.store, key, file.size, owner, referrer, quota)
            except QuotaExceeded:
                await self.delete(key)
                raise
        except BaseException:
            await self._do(None, register.give_up, key, reserved.before)
            raise
        return file

    async def _remove(self, key: str) -> int | None:
        """Delete a marked file. Its row is held meanwhile: nobody writes it anew before it is gone."""
        async with self._database.async_writing() as connection:
            size = await connection.run_sync(register.hold_marked, key)
            if size is not None:
                await self.storage.delete(key)
                await connection.run_sync(register.forget, key)
            return size

    @asynccontextmanager
    async def _renewed(self, key: str) -> AsyncIterator[None]:
        """Inside the block, the file is seen to be at work, however long that takes."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(_RENEWED)
                try:
                    await self._do(None, register.touch, key)
                except SQLAlchemyError as exc:  # the next one may come in time, and `store` tells if none did
                    _log.warning("a file at work could not be renewed", key=key, error=str(exc))

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _do(self, session: AsyncSession | None, step: Callable[..., T], *args: Any) -> T:
        if session is not None:
            return await (await session.connection()).run_sync(step, *args)
        async with self._database.async_writing() as connection:
            return await connection.run_sync(step, *args)

    def _quota_of(self, owner: str | None) -> int | None:
        if owner is None:
            return None
        return self._quota(owner) if callable(self._quota) else self._quota
