"""How a worker stops: it takes nothing more, lets short runs end, and gives the long ones back.

Celery's own soft shutdown sleeps in a signal handler: meanwhile nothing that ends is acknowledged, what was
fetched ahead stays where it is, and the whole time is waited for though every run has ended. Here the hub
goes on:

1. TERM: nothing is fetched any more; what was fetched and has not begun goes back at once.
2. The runs at work have `Settings.shutdown_timeout` seconds to end. A second TERM hurries: they have no more.
3. Those that still run are ended, uncounted, and their messages go back.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery import bootsteps, signals
from celery.platforms import EX_OK
from celery.worker import state

from errands.worker.stop_flag import set_stopping

logger = logging.getLogger("errands.worker")

_TURN = 0.02  # seconds between two looks whether all runs have ended
_HUB_ANSWERS = 2.0  # seconds after which the hub is taken to be busy with connecting


class Stopping(bootsteps.StartStopStep):
    """A step of the worker's start: from then on signals stop it in this way.

    SIGQUIT always does; TERM and Ctrl-C where `REMAP_SIGTERM=SIGQUIT` is set, as `errands worker` does.
    """

    requires = ("celery.worker.components:Hub",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._hurry = threading.Event()
        self._began = False
        self._pid = 0

    def start(self, parent: Any) -> None:
        """Take over the signals."""
        from celery.apps.worker import Worker  # only workers need it, and other processes import this module

        on_main_thread = threading.current_thread() is threading.main_thread()
        if not (isinstance(parent, Worker) and parent.hub is not None and on_main_thread):
            return  # a worker inside of another program, or a transport that knows no hub: Celery's ways
        self._pid = os.getpid()
        set_stopping(False)
        # For parts of the worker that find it to be no good any more.
        parent.stop_by_itself = partial(self.stop_by_itself, parent)
        if hasattr(parent.pool, "stop_worker"):
            parent.pool.stop_worker = parent.stop_by_itself
        names = ["SIGQUIT", *(["SIGTERM", "SIGINT"] if REMAP_SIGTERM == "SIGQUIT" else [])]
        for name in names:
            signal.signal(getattr(signal, name), lambda number, _: self._asked(parent, number))

    def stop(self, parent: Any) -> None:
        """The worker ends; whoever still waits for runs need not."""
        self._hurry.set()

    def _asked(self, worker: Any, number: int) -> None:
        if os.getpid() != self._pid:
            return  # a child of the pool that has not set its own handlers yet
        if self._began:
            self._hurry.set()
            return
        self._begin(worker, signal.Signals(number).name, EX_OK)

    def stop_by_itself(self, worker: Any, status: int) -> None:
        """Stop as if by TERM, from any thread: this process is no good any more.

        Args:
            status: to exit with.
        """
        if not self._began:
            self._begin(worker, "its own wish", status)

    def _begin(self, worker: Any, name: str, status: int) -> None:
        self._began = True
        set_stopping(True)
        threading.Thread(
            target=self._stop, args=(worker, name, status), name="errands-stopping", daemon=True
        ).start()

    def _stop(self, worker: Any, name: str, status: int) -> None:
        timeout = float(worker.app.conf.worker_soft_shutdown_timeout)
        signals.worker_shutting_down.send(sender=worker.hostname, sig=name, how="Soft", exitcode=status)
        consumer = worker.consumer
        if self._on_hub(worker, lambda: stop_fetching(consumer)):
            at_work = len(state.reserved_requests)
            logger.info("stopping; %s runs at work have %g s to end", at_work, timeout)
            deadline = monotonic() + timeout
            while state.reserved_requests and monotonic() < deadline and not self._hurry.wait(_TURN):
                pass
            self._on_hub(worker, lambda: give_back(consumer))
        # Also where the hub does not answer: who waits for a connection looks at this meanwhile.
        state.should_stop = status
        worker.hub.call_soon(_nothing)

    def _on_hub(self, worker: Any, function: Callable[[], None]) -> bool:
        done = threading.Event()

        def call() -> None:
            try:
                function()
            except Exception:
                logger.exception("while stopping")
            finally:
                done.set()

        # A pool whose loop the hub is on does it also while a task holds that up.
        getattr(worker.pool, "post", worker.hub.call_soon)(call)
        return done.wait(_HUB_ANSWERS)


def stop_fetching(consumer: Any) -> None:
    """Take no more messages, and give back those that have not begun. To be called on the hub."""
    if consumer.task_consumer is not None:
        consumer.task_consumer.cancel()
    # A pool of processes may be at what was handed to it before we hear so; ours tells, and can forget.
    forgets = getattr(consumer.pool, "forgets", False)
    waiting = {
        request
        for request in (*state.reserved_requests, *state.scheduled_requests, *_held_by_rates(consumer))
        if request.time_start is None and (forgets or not getattr(request, "handed_over", False))
    }
    consumer.controller.semaphore.clear()
    if forgets:
        consumer.pool.flush()
    for request in waiting:
        if request._eta_timer_entry is not None:
            consumer.timer.cancel(request._eta_timer_entry)
        state.task_ready(request)
        request.reject(requeue=True)
    if waiting:
        logger.info("stopping; %s runs that had not begun go back", len(waiting))


def _held_by_rates(consumer: Any) -> list[Any]:
    """What waits for its turn under a `rate_limit`; it waits no more."""
    held: list[Any] = []
    for bucket in consumer.task_buckets.values():
        if bucket is not None:
            held += [request for request, _ in bucket.contents]
            bucket.clear_pending()
    return held


def give_back(consumer: Any) -> None:
    """End the runs at work; their messages go back. To be called on the hub."""
    listen = getattr(consumer.pool, "listen", None)
    if listen is not None:
        listen()  # who has ended by now has ended
    left = len(state.active_requests)
    if left:
        logger.warning("stopping; %s runs that have not ended go back, uncounted", left)
    consumer.cancel_active_requests()


def _nothing() -> None:
    """The hub looks at what it is to do once more."""
