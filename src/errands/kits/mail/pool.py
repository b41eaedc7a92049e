"""A few SMTP connections, kept open and handed round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

import aiosmtplib


class _Shelf:
    """The connections of one event loop: `slots` bounds them, `idle` has those not in use and since when."""

    def __init__(self, size: int) -> None:
        self.slots = asyncio.Semaphore(size)
        self.idle: list[tuple[aiosmtplib.SMTP, float]] = []


class Lease:
    """One connection while it is in use."""

    def __init__(self, pool: Pool, smtp: aiosmtplib.SMTP, *, reused: bool) -> None:
        self._pool = pool
        self.smtp = smtp
        self.reused = reused

    async def renew(self) -> None:
        """Put a fresh connection in the place of this one."""
        self.smtp.close()
        self.smtp, self.reused = await self._pool.connect(), False


class Pool:
    """Lends connections, at most `size` at once in one event loop.

    Connections belong to the event loop that opened them, so each loop has its own. Those of a loop that has
    ended go with it.
    """

    def __init__(self, make: Callable[[], aiosmtplib.SMTP], *, size: int, check_after: float) -> None:
        self._make = make
        self._size = size
        self._check_after = check_after
        self._shelves: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shelf] = WeakKeyDictionary()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Lease]:
        """Lend a connection that is open, waiting for one if all are in use."""
        loop = asyncio.get_running_loop()
        shelf = self._shelves.setdefault(loop, _Shelf(self._size))
        async with shelf.slots:
            kept = await self._take(shelf)
            lease = Lease(self, kept or await self.connect(), reused=kept is not None)
            try:
                yield lease
            except (aiosmtplib.SMTPResponseException, aiosmtplib.SMTPRecipientsRefused):
                await self._reset(lease.smtp)
                raise
            except BaseException:
                # In an unknown state, cancelled half-way for one: never lent again.
                lease.smtp.close()
                raise
            finally:
                if lease.smtp.is_connected:
                    shelf.idle.append((lease.smtp, loop.time()))

    async def connect(self) -> aiosmtplib.SMTP:
        """Open a connection."""
        smtp = self._make()
        await smtp.connect()
        return smtp

    async def aclose(self) -> None:
        """Say goodbye on every idle connection of this event loop."""
        shelf = self._shelves.pop(asyncio.get_running_loop(), None)
        for smtp, _ in shelf.idle if shelf else ():
            try:
                await smtp.quit(timeout=5)
            except (OSError, aiosmtplib.SMTPException):
                smtp.close()

    async def _take(self, shelf: _Shelf) -> aiosmtplib.SMTP | None:
        """The connection used last, if the server still holds its end."""
        while shelf.idle:
            smtp, since = shelf.idle.pop()
            if not smtp.is_connected:
                continue
            if asyncio.get_running_loop().time() - since < self._check_after:
                return smtp
            try:
                await smtp.noop(timeout=5)
            except (OSError, aiosmtplib.SMTPException):
                smtp.close()
            else:
                return smtp
        return None

    async def _reset(self, smtp: aiosmtplib.SMTP) -> None:
        """Clear a refused message away, so that the connection can carry the next one."""
        try:
            await smtp.rset(timeout=5)
        except (OSError, aiosmtplib.SMTPException):
            smtp.close()
