"""Batches after the broker lost its data: what is told of them then comes from the ledger.

A batch that was sent with a transaction is durable, as its members are: `beat/durable.py` opens it once more.
How many of its members have ended, the new server can't know; the ledger does, and counts it from then on.
Any other batch is gone for good, with what was to follow it: the ledger is told so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import structlog

from errands.broker.client import Client
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.core import clock
from errands.core.batches import BATCH_TASK, BatchStatus
from errands.core.events import Event, Kind
from errands.core.states import State
from errands.store import batches, writes
from errands.store.batches import Members
from errands.store.engine import Database
from errands.store.writes import entry_order

_log = structlog.get_logger(__name__)

_PAUSE = 1.0  # seconds between two looks
_GONE_PAUSE = 5.0  # seconds between two looks for batches that are gone
_PATIENCE = 6.0  # seconds that a batch is missing before it is given up
_NEW = timedelta(seconds=5)
_PAGE = 500
_SHARE = 20  # of what counting takes, the pause after it: large batches are counted less often


class App(Protocol):
    """What this needs of the app."""

    @property
    def valkey(self) -> Client: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def batches(self) -> Any: ...

    @property
    def live(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Suspects:
    """Batches that the server did not know `at` that moment, when `last_id` was its newest event."""

    batch_ids: list[str]
    last_id: str
    at: float


class LostBatches:
    """Counts the batches that were opened once more, and ends those that nobody can open.

    Args:
        app: an `Errands` app.
        database: where the outbox and the ledger are.
        monotonic: seconds that only grow; a test passes its own.
    """

    def __init__(
        self, app: App, database: Database, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._database = database
        self._monotonic = monotonic
        self._due: dict[str, float] = {}  # when to count a batch again
        self._look_at = float("-inf")
        self._cursor = ""
        self._suspects: list[_Suspects] = []

    def step(self) -> float:
        """Look once. Returns seconds until the next look.

        Raises:
            redis.RedisError, sqlalchemy.exc.OperationalError: a server is away; all is done at the next look.
        """
        self._count_rebuilt()
        self._end_gone()
        if self._monotonic() >= self._look_at:
            self._look_at = self._monotonic() + _GONE_PAUSE
            self._look_for_gone()
        return _PAUSE

    # -- those that were opened once more

    def _count_rebuilt(self) -> None:
        rebuilt = self._app.batches.rebuilt()
        self._due = {batch_id: self._due.get(batch_id, 0.0) for batch_id in rebuilt}
        for batch_id in rebuilt:
            began = self._monotonic()
            if began < self._due[batch_id]:
                continue
            self._count(batch_id)
            now = self._monotonic()
            self._due[batch_id] = now + _SHARE * (now - began)

    def _count(self, batch_id: str) -> None:
        before: BatchStatus | None = self._app.batches.status(batch_id)
        if before is None:
            return
        with self._database.reading() as connection:
            known = batches.members(connection, batch_id)
            below = [] if known.durable else batches.unfinished_below(connection, batch_id)
        live = self._app.batches.batches_of([*known.others, *below])
        at_it = len(known.durable) + sum(run_id in live for run_id in known.others)
        at_it += sum(live.get(run_id) == batch_id for run_id in below)
        missing = 0
        if at_it == 0:  # whether those below its members were members, nobody knows any more
            missing = len(known.others) + sum(run_id not in live for run_id in below)
        unknown = max(0, before.total - known.total, known.told - known.total)
        counts = BatchStatus(
            id=batch_id, name="", state=State.RUNNING, total=known.total + unknown, succeeded=known.succeeded,
            failed=known.failed, failed_ids=known.failed_ids, fault=_fault(missing + unknown),
        )  # fmt: skip
        self._app.batches.recount(counts, over=at_it == 0)

    # -- those that are gone

    def _look_for_gone(self) -> None:
        with self._database.reading() as connection:
            found = batches.open_batches(connection, self._cursor, clock.now() - _NEW, _PAGE)
        self._cursor = found[-1] if len(found) == _PAGE else ""
        suspected = {batch_id for suspects in self._suspects for batch_id in suspects.batch_ids}
        gone = [each for each in self._app.batches.gone(found) if each not in suspected] if found else []
        if gone:
            # Read after the batches: what had ended when they were asked for is in the stream by now.
            last_id = EventStream(self._app.valkey, self._app.keys.events).extent().last_id
            self._suspects.append(_Suspects(gone, last_id, self._monotonic()))

    def _end_gone(self) -> None:
        if not self._suspects:
            return
        with self._database.reading() as connection:
            position = writes.read_position(connection, self._app.keys.events)
        recorded = entry_order(position.entry_id)
        for suspects in list(self._suspects):
            patient = self._monotonic() - suspects.at >= _PATIENCE
            if patient and entry_order(suspects.last_id) <= recorded:
                for batch_id in self._app.batches.gone(suspects.batch_ids):
                    self._end(batch_id)
                self._suspects.remove(suspects)

    def _end(self, batch_id: str) -> None:
        with self._database.reading() as connection:
            if not batches.still_open(connection, batch_id):
                return
            known = batches.members(connection, batch_id)
        total = max(known.told, known.total)
        done = known.succeeded + known.failed
        text = (
            f"the broker lost its data, and this batch with it: {done} of {total} runs are known to have "
            "ended; what was to follow it will not come"
        )
        self._app.live.record(_end_of(batch_id, known, total, text))
        _log.error("the broker has lost a batch", batch_id=batch_id, total=total, ended=done)


def _fault(missing: int) -> str:
    if not missing:
        return ""
    return (
        f"the broker lost its data: {missing} runs of this batch, or below it, are not known to have "
        "succeeded; its counts are of what the ledger knows"
    )


def _end_of(batch_id: str, known: Members, total: int, text: str) -> Event:
    counts = {"total": total, "succeeded": known.succeeded, "failed": known.failed}
    return Event(
        kind=Kind.FAILED, run_id=batch_id, at=clock.timestamp(), task=BATCH_TASK, attempt=1, result=counts,
        error={"type": "BatchFailed", "message": text},
    )  # fmt: skip
