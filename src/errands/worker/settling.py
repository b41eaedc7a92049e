"""Telling what came of an attempt, after Celery has stored its result and sent its follow-ups.

Only then does a run count as ended, so that a crash in between repeats it instead of losing its follow-ups.
"""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from celery.exceptions import Retry as CeleryRetry
from celery.exceptions import TimeLimitExceeded

from errands.broker.answer import Answer
from errands.broker.runs import LiveRuns, Reply, Result, Verdict
from errands.core import clock
from errands.core.errors import (
    ErrandsError,
    InvalidArguments,
    OutcomeUnknown,
    SecretError,
    Snooze,
    UntrustedMessage,
)
from errands.core.events import Event, Kind
from errands.core.outcome import Again, Done, Outcome, Over
from errands.core.scrubbing import scrubbed
from errands.worker.host import Host
from errands.worker.pool.job import has_neighbours, leave_end
from errands.worker.run import Run

logger = logging.getLogger("errands.run")

# Runs whose end could not be recorded; `Request` gives their messages back instead of acknowledging them.
unsaved: set[str] = set()
_MAIN_PROCESS = os.getpid()  # this module is imported before the pool forks
_NOT_HEARD = {
    Verdict.STALE: "another attempt has begun since",
    Verdict.REFUSED: "the run was revoked or has ended before",
}
_TEXT_MAX = 2_000
_TRACEBACK_MAX = 20_000


class WorkerDied(ErrandsError):
    """A run was given up, because each worker that took it died."""


@dataclass(slots=True)
class Attempt:
    """What is known while one attempt lasts. Kept on Celery's request, which lives exactly as long."""

    run: Run
    started: float
    outcome: Outcome | None = None
    settled: bool = False
    # What the result backend was asked to store. It is kept together with the event that tells of the end.
    result: Result | None = None


_GIVEN_UP = (Kind.FAILED, Kind.DISCARDED)
# Over for a reason that lies in the message itself or in what it does to workers: people should see it.
_DEAD_LETTERS = (InvalidArguments, SecretError, OutcomeUnknown, UntrustedMessage, WorkerDied)


def settle(task: Any, status: str = "", value: Any = None, run_id: str = "") -> None:
    """Tell what came of the attempt, after Celery has stored it. Called once by `Task.after_return`.

    In the worker's main process, which knows of an attempt only that its time was up, `value` is the
    TimeLimitExceeded.
    """
    host: Host = task.app
    request = task.request
    present = getattr(request, "errands", None)
    if not isinstance(present, Attempt):  # nothing, or what the message's header says
        if isinstance(value, TimeLimitExceeded):
            tell_lost(host, task.name, run_id, value)
        return
    if present.settled:
        return
    present.settled = True
    event = _ending(task, request, present, status, value)
    ordinary = event.kind is Kind.SUCCEEDED and not request.is_eager
    if ordinary and has_neighbours() and isinstance(host.live, LiveRuns):
        end = host.live.record_here(
            event, hop=present.run.hop, attempt=present.run.attempt, result=present.result
        )
        if end is not None:  # what is left of the job need not wait for it
            end.then(partial(_hear, task.name, event, present.run.attempt, end))
            leave_end(end)
            return
    try:
        if event.kind in _GIVEN_UP and _is_dead_letter(task, request, present.outcome):
            # First, since a crash in between then tells of it twice, and not never.
            host.live.record(_dead_letter(task, request, event))
        reply = host.live.record(
            event, hop=present.run.hop, attempt=present.run.attempt, result=present.result
        )
        _look_whether_heard(task.name, event, present.run.attempt, reply)
    except Exception:
        logger.exception("%s[%s]: its end could not be recorded", task.name, event.run_id)
        _keep_the_message(event.run_id)


def _hear(task: str, event: Event, attempt: int, end: Answer) -> None:
    try:
        _look_whether_heard(task, event, attempt, end.result())
    except Exception:
        logger.exception("%s[%s]: its end could not be recorded", task, event.run_id)
        _keep_the_message(event.run_id)


def _look_whether_heard(task: str, event: Event, attempt: int, reply: Reply) -> None:
    if reply.verdict is not Verdict.OK:
        logger.warning(
            "%s[%s]: attempt %s ended as %s, and it is not recorded: %s",
            task, event.run_id, attempt, event.kind.value, _NOT_HEARD.get(reply.verdict),
        )  # fmt: skip


def _keep_the_message(run_id: str) -> None:
    """The message of a run whose end is not recorded is not acknowledged: it is given out again."""
    if os.getpid() == _MAIN_PROCESS:
        unsaved.add(run_id)
    else:  # a child of the pool can say so in one way only: the main process gives back what a dead one held
        os._exit(os.EX_IOERR)


def tell_lost(host: Host, task: str, run_id: str, error: BaseException) -> None:
    """Record the end of an attempt whose process is gone."""
    facts = {"type": type(error).__name__, "message": str(error)[:_TEXT_MAX]}
    event = Event(kind=Kind.FAILED, run_id=run_id, at=clock.timestamp(), task=task, error=facts)
    host.live.record(event)


def _ending(task: Any, request: Any, present: Attempt, status: str, value: Any) -> Event:
    run = present.run
    now = clock.timestamp()
    facts: dict[str, Any] = {
        "run_id": run.id, "at": now, "task": task.name, "attempt": run.attempt,
        "duration": now - present.started, "progress": run.last_progress, "worker": request.hostname,
    }  # fmt: skip
    match present.outcome:
        case Done(result) if status != "FAILURE":
            kept = None if request.ignore_result else bounded(result, task.app.settings.result_max)
            kept = scrubbed(kept, run.secrets)
            return Event(kind=Kind.SUCCEEDED, result=kept, **facts)
        case Done():  # the result could not be stored
            return Event(kind=Kind.FAILED, error=_describe(value), **facts)
        case Again(error, wait, counted):
            kind = Kind.RETRYING if counted else Kind.SNOOZED
            if isinstance(error, Snooze):
                return Event(kind=kind, eta=now + wait, note=str(error), **facts)
            return Event(kind=kind, eta=now + wait, error=_describe(error), **facts)
        case Over() if status == "RETRY":  # Celery's own `autoretry_for` thinks otherwise
            return _retried(value, now, facts)
        case Over(error, discarded):
            return Event(
                kind=Kind.DISCARDED if discarded else Kind.FAILED,
                error=_describe(error),
                args=list(request.args or ()),
                kwargs=dict(request.kwargs or {}),
                **facts,
            )
        case None:  # ended by Celery's own means, such as self.retry()
            if isinstance(value, CeleryRetry):
                return _retried(value, now, facts)
            return Event(kind=Kind.FAILED, error=_describe(value), **facts)


def _retried(value: Any, now: float, facts: dict[str, Any]) -> Event:
    """A retry that Celery decided on."""
    when = getattr(value, "when", None)
    eta = now + when if isinstance(when, int | float) else None
    return Event(kind=Kind.RETRYING, eta=eta, error=_describe(getattr(value, "exc", None) or value), **facts)


def _is_dead_letter(task: Any, request: Any, outcome: Outcome | None) -> bool:
    """Whether people should look at the run: for what its message is, or since all its tries are used up."""
    if isinstance(outcome, Over) and isinstance(outcome.error, _DEAD_LETTERS):
        return True
    return not (isinstance(outcome, Over) and outcome.discarded) and _used_up(task, request)


def _used_up(task: Any, request: Any) -> bool:
    """Whether a run was tried again until it may not be any more. One that has one try simply failed."""
    return int(request.retries or 0) >= max(1, int(task.rules.policy.times))


def _dead_letter(task: Any, request: Any, ending: Event) -> Event:
    message = {"task": task.name, "args": list(request.args or ()), "kwargs": dict(request.kwargs or {})}
    error = ending.error or {}
    note = error.get("message", "")
    if ending.kind is Kind.FAILED and _used_up(task, request) and error.get("type") != WorkerDied.__name__:
        note = f"its {request.retries + 1} tries are used up: {error.get('type')}: {note}"
    queue = (request.delivery_info or {}).get("routing_key")
    return Event(
        kind=Kind.DEAD_LETTER, run_id=ending.run_id, at=ending.at, task=task.name, queue=queue, note=note,
        message=message,
    )  # fmt: skip


def bounded(value: Any, limit: int) -> Any:
    """`value` as the record keeps it: JSON of at most `limit` bytes, else a note of its size."""
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        plain = msgspec.to_builtins(value, enc_hook=str, str_keys=True)
        size = len(msgspec.json.encode(plain))
    except (TypeError, ValueError, RecursionError):
        plain = str(value)
        size = len(plain)
    return plain if size <= limit else {"truncated": True, "bytes": size}


def _describe(error: Any) -> dict[str, str]:
    if not isinstance(error, BaseException):
        return {"type": "Error", "message": str(error)[:_TEXT_MAX]}
    trace = "".join(traceback.format_exception(error))
    return {
        "type": type(error).__name__,
        "message": str(error)[:_TEXT_MAX],
        "traceback": trace[-_TRACEBACK_MAX:],
    }
