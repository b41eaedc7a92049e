"""What Celery tells by signals only: runs that ended without their process having a say."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

from billiard.exceptions import WorkerLostError
from celery import signals
from celery._state import get_current_task

from errands.broker import leases
from errands.core import clock
from errands.core.events import Event, Kind
from errands.core.scrubbing import scrubbed
from errands.worker.loop import process_loop
from errands.worker.settling import tell_lost

logger = logging.getLogger("errands.worker")

_celerys_trace = logging.getLogger("celery.app.trace")
_NEW_OBJECTS = 20_000  # between two looks for garbage: a few MiB


class _HideSecrets(logging.Filter):
    """Takes the secrets of the run at hand out of Celery's line on what its task returned."""

    def filter(self, record: logging.LogRecord) -> bool:
        facts = record.args
        if isinstance(facts, dict) and "return_value" in facts:
            request = getattr(get_current_task(), "request", None)
            run = getattr(getattr(request, "errands", None), "run", None)
            if run is not None and run.secrets:
                record.args = {**facts, "return_value": scrubbed(facts["return_value"], run.secrets)}
        return True


def connect(host: Any) -> None:
    """Listen for the app `host`. Signals are global: those of other apps in the process are passed over."""

    def belongs(task: Any) -> bool:
        return getattr(task, "app", None) is host

    def on_init(sender: Any = None, **_: Any) -> None:
        leases.take(str(getattr(sender, "hostname", "worker")))

    def on_failure(sender: Any, task_id: str = "", exception: Any = None, **_: Any) -> None:
        if belongs(sender) and isinstance(exception, WorkerLostError):
            tell_lost(host, sender.name, task_id, exception)

    def on_revoked(sender: Any, request: Any, expired: bool = False, **_: Any) -> None:
        if not belongs(sender):
            return
        kind = Kind.EXPIRED if expired else Kind.REVOKED
        host.live.record(Event(kind=kind, run_id=request.id, at=clock.timestamp(), task=sender.name))

    def on_process_shutdown(**_: Any) -> None:
        try:
            process_loop().run(asyncio.wait_for(host.resources.aclose(), timeout=2))
        except Exception:
            logger.warning("a resource could not be closed in order", exc_info=True)

    def on_setup(**_: Any) -> None:
        # What is loaded by now stays: the collector need not look at it again, and children go on sharing it.
        gc.collect()
        gc.freeze()
        # By default it runs after each 700 new objects, which is some twenty tasks: a quarter of their time.
        gc.set_threshold(_NEW_OBJECTS, 10, 10)

    if not any(isinstance(each, _HideSecrets) for each in _celerys_trace.filters):
        _celerys_trace.addFilter(_HideSecrets())
    # Before the pool forks: its children work under the same lease.
    signals.worker_init.connect(on_init, weak=False)
    signals.celeryd_after_setup.connect(on_setup, weak=False)
    signals.task_failure.connect(on_failure, weak=False)
    signals.task_revoked.connect(on_revoked, weak=False)
    signals.worker_process_shutdown.connect(on_process_shutdown, weak=False)
