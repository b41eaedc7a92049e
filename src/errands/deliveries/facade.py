"""`Deliveries`: what a task does with the rows of its recipients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection

from errands.core import clock
from errands.core.deliveries import Delivery, Outcome, Recipient, Totals
from errands.core.errors import Snooze
from errands.core.limits import Limit
from errands.core.retry import Retry
from errands.deliveries.line import Line
from errands.store import deliveries as store
from errands.store import opt_outs

if TYPE_CHECKING:
    from errands.app import Errands
    from errands.store.engine import Database
    from errands.worker.run import Run

T = TypeVar("T")
Send = Callable[[Delivery], Awaitable[Outcome]]

LATER = Retry(4, first=60, most=3600, factor=5)


class Deliveries:
    """The recipients of runs, in SQL. Ask for it in a task's signature: `*, deliveries: Deliveries`.

    Args:
        database: gives the database in which they are.
        inline: runs are in this process alone, and what waits is due at once.
    """

    def __init__(self, database: Callable[[], Database], *, inline: bool = False) -> None:
        self._database = database
        self._inline = inline

    @classmethod
    def of(cls, app: Errands) -> Deliveries:
        """Those of an app. A person who is erased from it is erased from them as well."""
        return cls(lambda: app.database, inline=app.settings.inline)

    async def begin(
        self,
        run: Run,
        channel: str,
        recipients: Iterable[T] | AsyncIterable[T],
        *,
        read: Callable[[T], Recipient] | None = None,
        topic: str = "",
        chunk: int = 1000,
    ) -> Totals:
        """Write one row for each recipient, a chunk a transaction; a further attempt passes over those that
        are there and writes the rest.

        An address that comes twice is sent to once, and one that has opted out never: both are `skipped`.

        Args:
            run: whose recipients they are.
            channel: "mail", "messages": what opting out is about.
            recipients: the same ones in the same order at each attempt: `Recipient`s, or what `read` makes
                one of. Never all of them are held in memory.
            read: makes a `Recipient`; called in a thread.
            topic: what this is about ("newsletter"), for those who opted out of that alone.
            chunk: rows in one transaction.

        Returns:
            How many are in each state now.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not take them; what was written stays.
        """
        there = await self._call(lambda connection: store.count(connection, run.id))

        def write(first: int, some: list[Any]) -> None:
            made = [read(each) for each in some] if read is not None else some
            with self._database().writing() as connection:
                store.add(connection, run.id, channel, topic, first, made)

        async for some in _chunks(recipients, there, chunk):
            await asyncio.to_thread(write, there, some)
            there += len(some)
            run.check(within=1.0)
        return await self.totals(run.id)

    async def deliver(
        self,
        run: Run,
        send: Send,
        *,
        at_once: int = 8,
        later: Retry = LATER,
        limit: Limit | None = None,
        turn: float = 300.0,
    ) -> Totals:
        """Send to all that wait, and return when nothing is left to do.

        Each row is marked as `sending` before `send` is called for it, and what came of it is written with
        the next rows that are marked. An attempt that is cut off leaves at most `at_once` rows of which
        nobody can say what became: the next one tells them as `unknown`, and does not send to them again.

        Those who are `Deferred` are tried again alone: meanwhile the run is snoozed, which uses no attempt
        up.

        Args:
            run: whose recipients they are.
            send: calls the provider for one row, and says what came of it. An error that it raises ends the
                attempt, and the row is `unknown`.
            at_once: so many at the same time.
            later: how often and when a deferred one is tried again; then it is `failed`.
            limit: one that `app.add_limit` declared: each row takes 1 of it.
            turn: seconds after which the run goes to the back of its queue, so that others have their turn.

        Returns:
            How many are in each state; none of them waits.

        Raises:
            Snooze: some wait; let it pass.
            RunCancelled: the run was revoked; those that wait stay `queued`.
            Exception: what `send` raised or gave as `Halt`.
        """
        begun = await self._write(
            lambda connection: store.take_over(connection, run.id, run.token, all_due=self._inline)
        )
        line = Line(
            run, self._database, send, totals=begun, at_once=at_once, later=later, limit=limit, turn=turn
        )
        await line.work()
        found = await self.totals(run.id)
        if found["deferred"]:
            due = await self._call(lambda connection: store.next_retry(connection, run.id))
            wait = 0.0 if due is None else (due - clock.now()).total_seconds()
            raise Snooze(max(0.0, wait), f"{found['deferred']} recipients are tried again later")
        if found["queued"]:
            raise Snooze(1, f"{found['queued']} recipients came back into the line")
        return found

    async def totals(self, run_id: str) -> Totals:
        """How many recipients of a run are in each state."""
        return await self._call(lambda connection: store.totals(connection, run_id))

    async def rows(self, run_id: str, *, after: int = -1, limit: int = 1000) -> list[Delivery]:
        """Up to `limit` rows of a run behind the position `after`, in their order."""
        return await self._call(lambda connection: store.page(connection, run_id, after, limit))

    # -- who wants nothing

    async def opt_out(
        self, channel: str, address: str, topic: str = "", *, source: str | None = None
    ) -> None:
        """Send nothing more to `address` on `channel`: about `topic`, or about anything. What waits is
        skipped.

        Args:
            channel: "mail", "messages".
            address: in the form that its kit keeps it in.
            topic: "" for all of them.
            source: where that was said, for the record.
        """
        await self._write(lambda connection: opt_outs.add(connection, channel, address, topic, source))

    async def opt_in(self, channel: str, address: str, topic: str = "") -> bool:
        """Forget that `address` had opted out of `topic`, or of all; whether it had."""
        return await self._write(lambda connection: opt_outs.remove(connection, channel, address, topic))

    async def opted_out(self, channel: str, address: str, topic: str = "") -> bool:
        """Whether `address` wants nothing about `topic`."""
        found = await self._call(lambda connection: opt_outs.opted_out(connection, channel, [address], topic))
        return bool(found)

    async def erase_address(self, address: str) -> int:
        """Clear an address wherever it is, for people who have no id. That it opted out stays. Returns how
        many rows that were."""
        return await self._write(
            lambda connection: store.erase(connection, person=None, run_ids=(), address=address)
        )

    # -- transactions, in a thread: the event loop goes on meanwhile

    async def _call(self, function: Callable[[Connection], T]) -> T:
        def call() -> T:
            with self._database().reading() as connection:
                return function(connection)

        return await asyncio.to_thread(call)

    async def _write(self, function: Callable[[Connection], T]) -> T:
        def call() -> T:
            with self._database().writing() as connection:
                return function(connection)

        return await asyncio.to_thread(call)


async def _chunks(rows: Iterable[T] | AsyncIterable[T], skip: int, size: int) -> AsyncIterator[list[T]]:
    """`rows` but for the first `skip`, in lists of `size`."""
    if isinstance(rows, Iterable):
        left = islice(rows, skip, None)
        while some := list(islice(left, size)):
            yield some
        return
    some = []
    async for row in rows:
        if skip:
            skip -= 1
            continue
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
