"""The threads of a beat: one keeps the lead, the others work while it has it."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import redis
import structlog
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import InterfaceError, OperationalError

from errands.beat.batches import BatchApp, BatchKeeper
from errands.beat.durable import DurableRuns
from errands.beat.leader import Leader
from errands.beat.lost_batches import LostBatches
from errands.beat.niceness import yield_to_others
from errands.beat.pace import Pace
from errands.beat.payloads import PayloadPruner
from errands.beat.pruner import Pruner
from errands.beat.recorder import Recorder
from errands.beat.relay import Publisher, Relay
from errands.broker.client import Client
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.core import clock
from errands.core.errors import BrokerUnavailable, ErrandsError
from errands.store.engine import Database

_log = structlog.get_logger(__name__)

# A server that is away comes back by itself; anything else that fails so often in a row is our own fault,
# and a fresh process may be rid of it.
_PASSING = (redis.RedisError, OperationalError, InterfaceError, OSError, BrokerUnavailable, BrokerError)
_MOST_FAILURES = 5
_LONGEST_WAIT = 2.0  # seconds between two tries: all goes on within 5 s of a server's return
_BLOCK_MS = 1000  # shorter than the client's socket time-out, and how long stopping may take
_PRUNE_SECONDS = 3600.0
_RELAY_SECONDS = 1.0
_YIELDING = frozenset({"recorder", "pruner"})  # they write about what others do, and may come after them
_FOLLOW_SECONDS = 0.5


class App(Publisher, BatchApp, Protocol):
    """What the beat needs of an `Errands` app."""

    @property
    def valkey(self) -> Client: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def database(self) -> Database: ...

    @property
    def tasks(self) -> Any: ...

    @property
    def live(self) -> Any: ...

    def discard_payloads(self, keys: Iterable[str]) -> None: ...

    @property
    def settings(self) -> Any: ...


class BeatFailed(ErrandsError):
    """A thread of the beat cannot go on; the process ends, so that its supervisor starts a new one."""


class BeatService:
    """Keeps the ledger, the outbox and the retention going, while this beat leads.

    Args:
        app: an `Errands` app.
        name: of this beat, unique; host, process id and a random part by default.
        lease_seconds: how long another beat waits before it takes over from one that has died.
        schedules: by thread, what sends due runs; each returns seconds until its next call.
    """

    def __init__(
        self,
        app: App,
        *,
        name: str | None = None,
        lease_seconds: float = 10.0,
        schedules: Mapping[str, Callable[[], float]] | None = None,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.leader = Leader(
            app.valkey, app.keys.leader, self.name, lease_seconds, token_key=app.keys.leader_token
        )
        self._app = app
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._failed = ""
        self._recorder = Recorder(
            EventStream(app.valkey, app.keys.events), app.database, name=app.keys.events, block_ms=_BLOCK_MS
        )
        self._pace = Pace(app.settings.events_max)
        self._relay = Relay(app, app.database, after=app.settings.outbox_after)
        self._durable = DurableRuns(app, app.database, after=app.settings.outbox_after)
        self._pruner = Pruner(
            app.database,
            run_days=app.settings.retention_days,
            dead_letter_days=app.settings.dead_letter_days,
            stopped=lambda: self._stopping.is_set() or not self.leader.leading,
        )
        self._payload_pruner = PayloadPruner(
            app, app.database, stopped=lambda: self._stopping.is_set() or not self.leader.leading
        )
        self._schedules = dict(schedules or {})
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Bring the tables up to date, then start the threads.

        Raises:
            sqlalchemy.exc.OperationalError: the database does not answer.
        """
        self._app.database.upgrade()
        steps: dict[str, Callable[[], float]] = {
            "leader": self._lead,
            "recorder": self._while_leading(self._record),
            "relay": self._while_leading(self._send),
            "durable runs": self._while_leading(self._durable.step),
            "pruner": self._while_leading(self._prune),
            "batches": self._while_leading(BatchKeeper(self._app).step),
            "lost batches": self._while_leading(LostBatches(self._app, self._app.database).step),
        }
        steps.update(self._schedules)
        for name, step in steps.items():
            thread = threading.Thread(target=self._loop, args=(name, step), name=f"beat-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float = 4.0) -> None:
        """End the threads, after the transactions they are in, and give the lead to another beat.

        Args:
            timeout: seconds to wait for them; past it they end with the process.
        """
        self._stopping.set()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        try:
            self.leader.release()
            self._app.valkey.zrem(self._app.keys.beats, self.name)
        except redis.RedisError as exc:
            _log.warning("could not give the lead back; it ends by itself", reason=str(exc))

    def check(self) -> None:
        """Say whether all threads are well.

        Raises:
            BeatFailed: one of them has given up.
        """
        if self._failure is not None:
            raise BeatFailed(f"the beat's {self._failed} cannot go on: {self._failure!r}") from self._failure

    def _lead(self) -> float:
        before = self.leader.leading
        after = self.leader.step()
        if after != before:
            _log.info("leads now" if after else "follows now", beat=self.name)
        self._app.valkey.zadd(self._app.keys.beats, {self.name: clock.timestamp()})
        return self.leader.seconds / 3 if after else min(1.0, self.leader.seconds / 3)

    def _record(self) -> float:
        begun = time.monotonic()
        written = self._recorder.step()
        # A step that found nothing has waited for something, and worked at nothing.
        worked = time.monotonic() - begun if written else 0.0
        return self._pace.pause(worked, more=self._recorder.behind, behind=self._recorder.lag)

    def _send(self) -> float:
        return 0.0 if self._relay.step() else _RELAY_SECONDS

    def _prune(self) -> float:
        self._pruner.step()
        self._payload_pruner.step()
        return _PRUNE_SECONDS

    def _while_leading(self, step: Callable[[], float]) -> Callable[[], float]:
        return lambda: step() if self.leader.leading else _FOLLOW_SECONDS

    def _loop(self, name: str, step: Callable[[], float]) -> None:
        if name in _YIELDING:
            yield_to_others(self._app.settings.recorder_nice)
        failures = 0
        wait = 0.0
        while not self._stopping.wait(wait):
            try:
                wait = step()
            except Exception as exc:  # noqa: BLE001 - it is logged, and ends the process if it stays
                failures += 1
                passing = isinstance(exc, _PASSING)
                if not passing and failures >= _MOST_FAILURES:
                    _log.critical("gives up; the process ends", thread=name, failures=failures, exc_info=True)
                    self._failure, self._failed = exc, name
                    self._stopping.set()
                    return
                wait = min(_LONGEST_WAIT, 0.25 * 2.0 ** min(failures, 10))
                _log.error(
                    "failed; trying again",
                    thread=name,
                    failures=failures,
                    again_in_s=wait,
                    reason=f"{type(exc).__name__}: {exc}",
                    exc_info=not passing or failures == 1,
                )
            else:
                if failures:
                    _log.info("works again", thread=name, failures=failures)
                failures = 0
