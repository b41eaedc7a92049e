"""A message in the hands of a worker's main process, which sees what a task's own process cannot tell."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any
from weakref import ref

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.app.task import Context
from celery.app.trace import fast_trace_task, trace_task_ret
from celery.exceptions import TaskRevokedError
from celery.worker import state
from celery.worker.request import Request as CeleryRequest

from errands.core import clock
from errands.core.events import Event, Kind
from errands.core.secrets import MASK
from errands.worker import celery_repr, deadlines, starting  # noqa: F401 — what Celery logs, sooner
from errands.worker.settling import tell_lost, unsaved

logger = logging.getLogger("errands.worker")

_NOTHING: dict[str, float] = {}
# Headers that Celery does not count among those that the sender added.
_CELERYS = frozenset({*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"})


@lru_cache(maxsize=8)
def _wants_ids(app: Any) -> bool:
    return bool(app.conf.worker_deduplicate_successful_tasks)


class Request(CeleryRequest):
    """Celery's, made with less, and with a say in the end of attempts that were cut off from outside."""

    handed_over = False  # to the pool
    # What `__init__` below does not set, since no such message comes its way.
    _eta = _expires = None
    _utc = True
    _limits: Any = (None, None)

    @classmethod
    def lean(
        cls, message: Any, headers: dict[str, Any], payload: Any, *, task: Any, hostname: str, eventer: Any,
        connection_errors: Any, on_ack: Any, on_reject: Any,
    ) -> Request:  # fmt: skip
        """The request of an ordinary message: protocol 2, no ETA, no expiry.

        Celery's own `__init__` goes by a chain of defaults for every message there ever was. What it sets
        besides is kept the same: `tests/unit/test_celery_internals.py` compares the two.
        """
        self = cls.__new__(cls)
        properties = message.properties or {}
        delivery = message.delivery_info or {}
        request = headers.copy()
        self._message = message
        self._request_dict = request
        self._body = message.body
        self._app = task.app
        self._decoded = False
        self._content_type, self._content_encoding = message.content_type, message.content_encoding
        self._Request__payload = payload
        self.id = request["id"]
        self._type = request["task"]
        self.name = request.get("shadow") or self._type
        self._root_id, self._parent_id = request.get("root_id"), request.get("parent_id")
        limits = request.get("timelimit")
        if limits:
            self.time_limits = limits
        self._argsrepr, self._kwargsrepr = request.get("argsrepr", ""), request.get("kwargsrepr", "")
        self._on_ack, self._on_reject = on_ack, on_reject
        self._hostname = hostname
        self._eventer = eventer
        self._connection_errors = connection_errors
        self._task = task
        ignored = request.get("ignore_result")
        self._ignore_result = task.ignore_result if ignored is None else ignored
        self._delivery_info = {
            "exchange": delivery.get("exchange"),
            "routing_key": delivery.get("routing_key"),
            "priority": properties.get("priority"),
            "redelivered": delivery.get("redelivered", False),
        }
        request["properties"] = properties
        request["reply_to"] = properties.get("reply_to")
        request["correlation_id"] = properties.get("correlation_id")
        request["hostname"] = hostname
        request["delivery_info"] = self._delivery_info
        # The tracer would look for these by taking off every header that is none of them.
        request["headers"] = {name: headers[name] for name in headers if name not in _CELERYS} or None
        request["args"], request["kwargs"], _ = payload
        self._args, self._kwargs = request["args"], request["kwargs"]
        return self

    @property
    def time_limits(self) -> tuple[float | None, float | None]:
        """Hard and soft limit in seconds: the message's or the task's, and no longer than the run may last.

        A property, since Celery makes subclasses of this class whose `execute_using_pool` is not ours.
        """
        hard, soft = self._limits
        task = self._task
        return deadlines.clipped(self._request_dict, hard or task.time_limit, soft or task.soft_time_limit)

    @time_limits.setter
    def time_limits(self, given: Any) -> None:
        self._limits = given

    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
        """Hand the attempt over to the pool.

        A pool of this process gets the arguments as they are: they were decoded when the request was made,
        and Celery's tracer takes them so when no content type is told. It also has the start told.

        Raises:
            TaskRevokedError: it was revoked, or has expired, while it waited here.
        """
        if (self.id in state.revoked or self._expires or self.stamped_headers) and self.revoked():
            raise TaskRevokedError(self.id)
        hard, soft = self.time_limits
        if getattr(pool, "takes_decoded", False):
            body, kind, encoding = self._payload, None, None
            apply = pool.on_apply
            more = {"say_started": self.say_started, "fresh_until": self._fresh_until()}
        else:
            body, kind, encoding = self._body, self._content_type, self._content_encoding
            apply, more = pool.apply_async, {}
        self.handed_over = True
        result = apply(
            fast_trace_task if self._app.use_fast_trace_task else trace_task_ret,
            (self._type, self.id, self._request_dict, body, kind, encoding),
            {},
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=soft,
            timeout=hard,
            correlation_id=self.id,
            **more,
        )
        self._apply_result = None if result is None else ref(result)
        return result

    def _fresh_until(self) -> float:
        """When the moment of its sending is over: see `broker/streams/moment.py`.

        Where messages are signed, somebody may have copied one, mark and all, and the server is to be asked.
        """
        if getattr(self._app, "signer", None) is not None:
            return 0.0
        fresh: dict[str, float] = getattr(self._message.channel, "fresh", _NOTHING)
        return fresh.get(self._message.delivery_tag, 0.0)

    def say_started(self) -> Any:
        """Have the server told that the attempt starts: see `starting.say_early`."""
        return starting.say_early(self)

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell watchers, if there are any."""
        eventer = self._eventer
        if eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups):
            if "result" in fields and getattr(self._task, "function", None) and self._task.arguments.secrets:
                fields["result"] = MASK  # it may be made of them, and what they are is not known here
            super().send_event(type, **fields)

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        """Celery calls this when the pool is done with the attempt. An ordinary end takes a short way."""
        failed, result, runtime = failed__retval__runtime
        if failed:
            return super().on_success(failed__retval__runtime, **kwargs)
        # Celery keeps the ids of what has succeeded for one use only.
        state.task_ready(self, successful=_wants_ids(self._app))
        if self._task.acks_late:
            self.acknowledge()
        self.send_event("task-succeeded", result=result, runtime=runtime)
        return None

    def acknowledge(self) -> None:
        """Acknowledge the message, unless the end of its run could not be recorded: then it goes back."""
        if self.id in unsaved:
            unsaved.discard(self.id)
            self.reject(requeue=True)
        else:
            super().acknowledge()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Celery calls this for each attempt that failed; here it is about those whose process died."""
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        if isinstance(error, MemoryError):
            # Celery raises it once more, here, where nobody would acknowledge the message.
            state.task_ready(self)
            self.acknowledge()
            return None
        cancelled = self._already_cancelled or self._already_revoked
        if isinstance(error, WorkerLostError | SystemExit | KeyboardInterrupt) and not cancelled:
            facts = {"type": "WorkerLost", "message": f"the process that worked on it died: {error}"}
            self._tell(Kind.LOST, error=facts)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """End the attempt, since the worker stops before it is done.

        That is not the run's fault, so the attempt does not count, and its message goes back. A message that
        was acknowledged at its start (`acks_late=False`) is no more: such a run has failed.
        """
        if self.time_start is None:
            super().cancel(pool, signal, emit_retry=False)
        elif self.task.acks_late:
            super().cancel(pool, signal, emit_retry=False)
            self._tell(Kind.SNOOZED, eta=clock.timestamp(), note="the worker was stopped; the run went back")
        else:
            super().cancel(pool, signal, emit_retry=False)
            self._fail_stopped()

    def _fail_stopped(self) -> None:
        try:
            raise WorkerLostError("the worker was stopped, and without acks_late the run is not repeated")
        except WorkerLostError as error:
            einfo = ExceptionInfo()
            tell_lost(self.app, self.name, self.id, error)
            self.task.backend.mark_as_failure(
                self.id,
                error,
                traceback=einfo.traceback,
                request=self._context,
                store_result=self.store_errors,
            )

    def _tell(self, kind: Kind, **facts: Any) -> None:
        envelope = self.request_dict.get("errands")
        hop = int(envelope.get("hop", 0)) if isinstance(envelope, dict) else 0
        event = Event(kind=kind, run_id=self.id, at=clock.timestamp(), task=self.name, **facts)
        try:
            self.app.live.record(event, hop=hop)
        except Exception:
            logger.exception("%s[%s]: what became of its attempt could not be recorded", self.name, self.id)
