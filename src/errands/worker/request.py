"""A message in the hands of a worker's main process, which sees what its child process cannot tell."""

from __future__ import annotations

import logging
from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.worker.request import Request as CeleryRequest

from errands.core import clock
from errands.core.events import Event, Kind

logger = logging.getLogger("errands.worker")


class Request(CeleryRequest):
    """Records the end of attempts that were cut off from outside."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Celery calls this for each attempt that failed; here it is about those whose process died."""
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        cancelled = self._already_cancelled or self._already_revoked
        if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt) and not cancelled:
            facts = {"type": "WorkerLost", "message": f"the process that worked on it died: {error}"}
            self._tell(Kind.LOST, error=facts)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Celery calls this when the worker stops before the attempt is done. That is not the run's fault,
        so the attempt does not count."""
        begun = self.time_start is not None
        super().cancel(pool, signal, emit_retry)
        if begun:
            self._tell(Kind.SNOOZED, eta=clock.timestamp(), note="the worker was stopped; the run went back")

    def _tell(self, kind: Kind, **facts: Any) -> None:
        envelope = self.request_dict.get("errands")
        hop = int(envelope.get("hop", 0)) if isinstance(envelope, dict) else 0
        event = Event(kind=kind, run_id=self.id, at=clock.timestamp(), task=self.name, **facts)
        try:
            self.app.live.record(event, hop=hop)
        except Exception:
            logger.exception("%s[%s]: what became of its attempt could not be recorded", self.name, self.id)
