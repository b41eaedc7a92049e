"""Sends durable runs again that the broker has lost: it came back without its data, or without the newest.

A run that went through the outbox is durable: its row stays there until the ledger knows of its end. So what
is in the outbox, was sent, and is not known to the server any more, was lost, in whatever way: emptied,
restored from an old copy, or restarted without the last second of its append-only file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import structlog

from errands.beat.relay import Publisher
from errands.broker import epoch, workers
from errands.broker.client import Client
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.core import clock
from errands.core.states import State
from errands.store import durable, outbox, writes
from errands.store.durable import Lost, Watched
from errands.store.engine import Database
from errands.store.writes import entry_order

_log = structlog.get_logger(__name__)

_PAUSE = 2.0  # seconds between two looks where nothing seems to be lost
# A worker reports every 2.5 s: one that lives has told so by then, also a server that knew nothing.
_PATIENCE = 6.0
_OLD = timedelta(days=5)  # live states are kept for a week after the run was due


class App(Publisher, Protocol):
    """What it needs of the app."""

    @property
    def valkey(self) -> Client: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def tasks(self) -> Any: ...

    @property
    def settings(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class _Suspects:
    """Runs that the server did not know `at` that moment, when `last_id` was its newest event."""

    run_ids: list[str]
    last_id: str
    at: float


class DurableRuns:
    """Looks, a batch at a time, whether the server knows the runs it is to know; sends lost ones again.

    All rows of the outbox are looked at in turn: unhurriedly, or, when the server was restarted or something
    is missing, one batch after the other. What is missing is sent again once the ledger has caught up with
    the events that the server has: it may have ended. It keeps its id, so nothing runs twice that the server
    does know; its attempts go on counting.

    Args:
        app: publishes, and knows the servers.
        database: where the outbox and the ledger are.
        after: seconds that a row was sent ago before it is looked at.
        batch: rows of one look.
        monotonic: seconds that only grow; a test passes its own.
    """

    def __init__(
        self, app: App, database: Database, *, after: float = 5.0, batch: int = 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._app = app
        self._database = database
        self._after = timedelta(seconds=after)
        self._batch = batch
        self._monotonic = monotonic
        self._start = ""
        self._cursor = ""
        self._hurry = False
        self._suspects: list[_Suspects] = []

    def step(self) -> float:
        """Look at one batch, and send what was found lost before. Returns seconds until the next step.

        Raises:
            BrokerUnavailable, kombu.exceptions.OperationalError, redis.RedisError: the broker is away.
        """
        self._notice_a_restart()
        self._send_lost()
        with self._database.reading() as connection:
            rows = durable.watched(connection, self._cursor, clock.now() - self._after, self._batch)
        if rows:
            self._look_at(rows)
        whole = len(rows) < self._batch  # the end of the outbox: from the beginning again
        self._cursor = "" if whole else rows[-1].id
        self._hurry = self._hurry and not whole
        return 0.0 if self._hurry else _PAUSE

    def _notice_a_restart(self) -> None:
        start = epoch.server_start(self._app.valkey)
        if start == self._start:
            return
        if self._start:
            _log.warning("the broker was restarted; looking whether it lost durable runs")
        self._start, self._cursor, self._hurry = start, "", True

    def _look_at(self, rows: Sequence[Watched]) -> None:
        ended = [row.id for row in rows if row.ended]
        if ended:  # the recorder had to pass them over
            outbox.remove(self._database, ended)
        suspected = {run_id for suspects in self._suspects for run_id in suspects.run_ids}
        asked = [row for row in rows if not row.ended and row.id not in suspected]
        if not asked:
            return
        horizon = clock.now() - _OLD
        old = {row.id for row in asked if row.since < horizon}
        missing = epoch.unknown(self._app.valkey, self._app.keys, [row.id for row in asked], old)
        if missing:
            stream = EventStream(self._app.valkey, self._app.keys.events)
            # Read after the runs: what had ended when they were asked for is in the stream by now.
            self._suspects.append(_Suspects(missing, stream.extent().last_id, self._monotonic()))
            self._hurry = True

    def _send_lost(self) -> None:
        """Send again what is still missing now that the ledger knows all that the server knew then."""
        with self._database.reading() as connection:
            recorded = entry_order(writes.read_position(connection, self._app.keys.events).entry_id)
        due = [
            suspects for suspects in self._suspects
            if self._monotonic() - suspects.at >= _PATIENCE and entry_order(suspects.last_id) <= recorded
        ]  # fmt: skip
        alive = workers.alive(self._app.valkey, self._app.keys) if due else {}
        for suspects in due:
            with self._database.reading() as connection:
                found = durable.lost(connection, suspects.run_ids)
            self._send([run for run in found if not self._is_at_work(run, alive)])
            self._suspects.remove(suspects)

    def _is_at_work(self, run: Lost, alive: dict[str, dict[str, Any]]) -> bool:
        """Whether a worker that lives may still be at the run: it says so, or its time has not run out."""
        if run.state != State.RUNNING.value or run.started_at is None:
            return False
        told = alive.get(run.worker or "")
        began = run.started_at.timestamp()
        if told is None or told.get("started_at", 0.0) > began:  # a later worker of the same name
            return False
        if "runs" in told and told.get("at", 0.0) > began:  # both by the worker's own clock
            return run.row.id in told["runs"]
        task = self._app.tasks.get(run.row.task)
        limit = float(getattr(task, "time_limit", None) or self._app.settings.time_limit)
        return clock.timestamp() < began + limit

    def _send(self, runs: Sequence[Lost]) -> None:
        if not runs:
            return
        refused = self._app.publish_outbox([run.row for run in runs])
        for run in runs:
            if (error := refused.get(run.row.id)) is not None:
                _log.error(
                    "a durable run that the broker lost cannot be sent again",
                    run_id=run.row.id, task=run.row.task, exc_info=error,
                )  # fmt: skip
        sent = [run.row.id for run in runs if run.row.id not in refused]
        if sent:
            outbox.mark_sent(self._database, sent)
            _log.warning("durable runs that the broker had lost were sent again", count=len(sent))
