"""Working off the rows of one run, several at once, with few transactions.

Each of `at_once` hands sends to one row at a time. A hand that is done says what came of its row and asks for
the next one; whatever hands have to say while a transaction is under way goes into the next one, together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import OperationalError

from errands.core import clock
from errands.core.deliveries import (
    OPEN,
    Bounced,
    Deferred,
    Delivery,
    DeliveryState,
    Failed,
    Halt,
    Outcome,
    Sent,
    Skipped,
    Totals,
    Unknown,
)
from errands.core.errors import Snooze
from errands.core.limits import Limit
from errands.core.retry import Retry
from errands.store import deliveries as store

if TYPE_CHECKING:
    from errands.store.engine import Database
    from errands.worker.run import Run

State = DeliveryState
Done = tuple[Delivery, Outcome]
Asking = tuple[Done | None, "asyncio.Future[Delivery | None]"]

_GATHER = 0.004  # seconds
_PATIENCE = 2.0  # seconds that hands wait for a limit; for a longer wait the run is put off
_GRACE = 2.0  # seconds that what is under way has to end in when the attempt is cut off
_TRIES = 6  # of a transaction: what was sent must not be forgotten because the database was away for a moment
_STATES = {
    Bounced: State.BOUNCED, Failed: State.FAILED, Unknown: State.UNKNOWN, Skipped: State.SKIPPED,
}  # fmt: skip


_OPEN = {state.value for state in OPEN}


class Line:
    """One attempt's way through the rows. See `Deliveries.deliver` for the arguments."""

    def __init__(
        self, run: Run, database: Callable[[], Database], send: Callable[[Delivery], Awaitable[Outcome]], *,
        totals: Totals, at_once: int, later: Retry, limit: Limit | None, turn: float,
    ) -> None:  # fmt: skip
        if at_once < 1:
            raise ValueError(f"deliver(at_once={at_once}): it must be 1 or more")
        self._run = run
        self._database = database
        self._send = send
        self._at_once = at_once
        self._enough = max(1, at_once // 2)
        self._later = later
        self._limit = limit
        self._ends_at = clock.timestamp() + turn
        self._recipients = totals.recipients
        self._left = totals.open
        self._queued = totals["queued"]
        self._over: BaseException | None = None
        self._empty = False
        self._asking: list[Asking] = []
        self._under_way: set[asyncio.Future[Outcome]] = set()
        self._writer: asyncio.Task[None] | None = None

    async def work(self) -> None:
        """Send to all that are queued.

        Raises:
            BaseException: why it ended before; what was under way has ended too, and is written.
        """
        hands = [asyncio.create_task(self._hand()) for _ in range(min(self._at_once, max(1, self._queued)))]
        try:
            await asyncio.wait(hands)
        except BaseException as error:  # noqa: BLE001 — a time limit, a cancellation: it is raised below
            self._stop(error)
            await asyncio.wait(hands, timeout=_GRACE)
            for sending in self._under_way:
                sending.cancel()
            await asyncio.wait(hands)
        for hand in hands:
            hand.result()
        if self._over is not None:
            raise self._over

    def _stop(self, why: BaseException) -> None:
        """Let no hand take another row."""
        if self._over is None:
            self._over = why

    # -- hands

    async def _hand(self) -> None:
        done: Done | None = None
        while (row := await self._next(done)) is not None:
            done = row, await self._deliver(row)

    async def _deliver(self, row: Delivery) -> Outcome:
        sending = asyncio.ensure_future(self._send(row))
        self._under_way.add(sending)
        try:
            outcome = await sending
        except asyncio.CancelledError:
            return Unknown("it was cut off while it was under way")
        except Exception as error:  # noqa: BLE001 — nobody said what it means, so the attempt ends with it
            self._stop(error)
            return Unknown(f"{type(error).__name__}: {error}"[:500])
        finally:
            self._under_way.discard(sending)
        if isinstance(outcome, Halt):
            self._stop(outcome.error)
        return outcome

    async def _next(self, done: Done | None) -> Delivery | None:
        """Say what came of the row before, and get the next one; None where there is none."""
        answer: asyncio.Future[Delivery | None] = asyncio.get_running_loop().create_future()
        self._asking.append((done, answer))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await answer

    # -- transactions

    async def _write(self) -> None:
        while self._asking:
            if len(self._asking) < self._enough:
                await asyncio.sleep(_GATHER)  # others end meanwhile, and share the transaction
            asking, self._asking = self._asking, []
            answers = [answer for _, answer in asking]
            try:
                await self._turn([done for done, _ in asking if done is not None], answers)
            except Exception as error:  # noqa: BLE001 — the hands raise it
                self._stop(error)
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(error)

    async def _turn(self, done: list[Done], answers: list[asyncio.Future[Delivery | None]]) -> None:
        """Write what was done, claim rows for those who ask, and tell how far it is."""
        wanted = 0 if self._empty or self._is_over() else min(len(answers), self._queued)
        if wanted and self._limit is not None:
            wanted = await self._allowed(self._limit, wanted, done)
        rows = await self._transact(done, wanted) if done or wanted else []
        self._queued -= len(rows)
        self._empty = self._empty or len(rows) < wanted or not self._queued
        for answer, row in zip(answers, rows, strict=False):
            answer.set_result(row)
        for answer in answers[len(rows) :]:
            if self._empty or self._over is not None:
                answer.set_result(None)
            else:  # the limit gave fewer than were asked for
                self._asking.append((None, answer))
        try:
            self._run.progress(self._recipients - self._left, self._recipients)
        except BaseException as error:  # noqa: BLE001 — revoked, for one: rows that were handed out are still sent
            self._stop(error)

    def _is_over(self) -> bool:
        if self._over is None and self._run.stopping:
            self._stop(Snooze(0, "the worker stops; the run goes on with the recipients that are left"))
        elif self._over is None and clock.timestamp() >= self._ends_at:
            self._stop(Snooze(0, "others have their turn; the run goes on with the recipients that are left"))
        return self._over is not None

    async def _allowed(self, limit: Limit, wanted: int, done: list[Done]) -> int:
        """How many may be sent to now: up to `wanted`, 0 where the run is to come again."""
        wanted = min(wanted, limit.bound.most)
        while not self._is_over():
            try:
                return await self._run.allow(str(limit.name), wanted, patience=0)
            except Snooze as later:
                if later.seconds > _PATIENCE:
                    self._stop(later)
                    break
                if done:  # it must not wait with us to be written
                    await self._transact(done, 0)
                    done.clear()
                await asyncio.sleep(later.seconds)
        return 0

    async def _transact(self, done: list[Done], wanted: int) -> list[Delivery]:
        settled = [(row, self._values(row, outcome)) for row, outcome in done]

        def transact() -> list[Delivery]:
            with self._database().writing() as connection:
                store.settle(connection, self._run.token, settled)
                if not wanted:
                    return []
                return store.claim(connection, self._run.id, self._run.token, wanted)

        for number in range(1, _TRIES + 1):
            try:
                rows = await asyncio.to_thread(transact)
                self._left -= sum(values["state"] not in _OPEN for _, values in settled)
                return rows
            except OperationalError:
                if number == _TRIES:
                    raise
                await asyncio.sleep(0.1 * 2**number)
        raise AssertionError("the last try returns or raises")

    def _values(self, row: Delivery, outcome: Outcome) -> dict[str, Any]:
        values: dict[str, Any] = {"reason": None, "provider_id": None, "tries": row.tries, "retry_at": None}
        match outcome:
            case Sent(provider_id):
                return values | {"state": State.SENT.value, "provider_id": provider_id}
            case Halt(error):
                reason = f"{type(error).__name__}: {error}"[:500]
                return values | {"state": State.QUEUED.value, "tries": row.tries - 1, "reason": reason}
            case Deferred(reason) if row.tries > self._later.times:
                return values | {
                    "state": State.FAILED.value, "reason": f"given up after {row.tries} tries: {reason}"
                }  # fmt: skip
            case Deferred(reason, wait):
                seconds = max(self._later.wait(row.tries), wait or 0)
                retry_at = clock.now() + timedelta(seconds=seconds)
                return values | {"state": State.DEFERRED.value, "reason": reason, "retry_at": retry_at}
            case _:
                return values | {"state": _STATES[type(outcome)].value, "reason": outcome.reason}
