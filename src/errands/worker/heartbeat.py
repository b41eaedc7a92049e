"""A worker tells that it is alive, what it serves and how it fares, every few seconds."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import psutil
import redis
from celery import bootsteps, signals
from celery.worker import state as worker_state

from errands.broker import leases, workers
from errands.core import clock
from errands.worker.standstill import Standstill, broker_answers, replace

logger = logging.getLogger("errands.heartbeat")

INTERVAL = 2.5
_MOST_TOLD = 500  # runs at work, in one report


class Heartbeat(bootsteps.StartStopStep):
    """A step of the worker's start: from then on a thread reports; at the end it signs off."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._stop = threading.Event()
        self._signed_off = False
        self._thread: threading.Thread | None = None
        # The consumer tells it that it turns.
        parent.standstill = self._standstill = Standstill(lambda: broker_answers(parent.app))

    def start(self, parent: Any) -> None:
        """Report once now, then from a thread, which goes on while the main loop is busy."""
        self._started_at = clock.timestamp()
        self._process = psutil.Process()
        self._failing = False
        self._report(parent)  # before the first message is taken
        signals.worker_shutdown.connect(self._let_go, sender=parent, weak=False)
        self._thread = threading.Thread(
            target=self._beat, args=(parent,), name="errands-heartbeat", daemon=True
        )
        self._thread.start()

    def stop(self, parent: Any) -> None:
        """Sign off, so that the worker is not taken for one that died.

        Its lease is held on to: what still ends in the pool is nobody else's.
        """
        self._signed_off = True
        app = parent.app
        try:
            workers.forget(app.valkey, app.keys, parent.hostname)
        except Exception:  # the server may be gone first; the lease runs out by itself
            logger.warning("could not sign off %s", parent.hostname, exc_info=True)

    terminate = stop

    def _let_go(self, sender: Any, **_: Any) -> None:
        """The worker has ended: whatever it left unfinished may start elsewhere at once."""
        self._stop.set()
        try:
            leases.release(sender.app.valkey, sender.app.keys)
        except redis.RedisError as exc:
            logger.warning("could not let go of the lease; it runs out by itself: %s", exc)

    def _beat(self, worker: Any) -> None:
        replaced = False
        while not self._stop.wait(INTERVAL):
            self._report(worker)
            if not replaced and self._turns(worker) and self._standstill.look():
                replaced = True
                replace(worker)

    def _turns(self, worker: Any) -> bool:
        """Whether the hub has to turn: not while the worker ends, nor where it runs the tasks itself (solo).
        A worker inside of another program is left alone."""
        inside = not hasattr(worker, "stop_by_itself")
        return not (inside or self._signed_off or _pool_name(worker.pool_cls) == "solo")

    def _report(self, worker: Any) -> None:
        app = worker.app
        try:
            leases.renew(app.valkey, app.keys)
            if not self._signed_off:
                workers.report(app.valkey, app.keys, worker.hostname, self._facts(worker, self._process))
            if self._failing:
                logger.info("heartbeats are heard again")
            self._failing = False
        except Exception as exc:  # noqa: BLE001 — a heart goes on
            if not self._failing:  # once, not each time
                logger.warning("heartbeat failed, going on: %s", exc)
            self._failing = True

    def _facts(self, worker: Any, process: psutil.Process) -> dict[str, Any]:
        family = [process, *process.children(recursive=True)]
        memory, cpu = 0, 0.0
        for member in family:
            try:
                memory += member.memory_info().rss
                times = member.cpu_times()
                cpu += times.user + times.system
            except psutil.NoSuchProcess:
                continue
        facts = {
            "name": worker.hostname,
            "pid": os.getpid(),
            "queues": sorted(worker.app.amqp.queues.consume_from),
            "concurrency": worker.concurrency,
            "pool": _pool_name(worker.pool_cls),
            "active": len(worker_state.active_requests),
            "done": sum(worker_state.total_count.values()),
            "rss": memory,
            "cpu_seconds": round(cpu, 2),
            "started_at": self._started_at,
            "at": clock.timestamp(),
        }
        runs = _at_work()
        return facts if runs is None else {**facts, "runs": runs}


def _at_work() -> list[str] | None:
    """The runs that this worker is at; None where they are too many to tell, or change meanwhile."""
    try:
        found = [request.id for request in list(worker_state.active_requests)]
    except RuntimeError:  # the main thread took one up meanwhile
        return None
    return found if len(found) <= _MOST_TOLD else None


def _pool_name(pool: Any) -> str:
    """As `errands worker --pool` calls it."""
    named = getattr(pool, "called", None)
    return str(named or getattr(pool, "__module__", str(pool)).rpartition(".")[2])
