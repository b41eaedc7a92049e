"""Saying that an attempt starts, and learning whether it may.

Of an ordinary run it is said as soon as the pool has room for it, before Celery has made ready what the task
sees: both are under way at a time.
"""

from __future__ import annotations

import os
from typing import Any

import redis
from celery.exceptions import Ignore, Reject

from errands.broker.answer import Answer
from errands.broker.runs import LiveRuns, Reply, Verdict
from errands.core import clock, green
from errands.core.events import Event, Kind
from errands.worker import admission, deadlines
from errands.worker.pool.job import has_neighbours, needs_no_leave, take_start

LOOK_AGAIN = 30.0  # seconds
_AS_EXPECTED = Reply(Verdict.OK, 1, 1)  # to the first start of a new run


def say_early(request: Any) -> Answer | None:
    """Say that the attempt of a message starts, in a worker whose hub is on the event loop.

    Args:
        request: as Celery's consumer has it.

    Returns:
        The answer, which `say_started` takes; None where more is to be said than of an ordinary run.
    """
    task, message = request.task, request.request_dict
    envelope = message.get("errands")
    live = getattr(task.app, "live", None)
    if (
        not isinstance(envelope, dict) or not envelope.get("told") or envelope.get("copy")
        or getattr(task, "function", None) is None or task.rules.of_starts
        or message["delivery_info"].get("redelivered") or not isinstance(live, LiveRuns)
    ):  # fmt: skip
        return None
    event = Event(
        kind=Kind.STARTED, run_id=request.id, at=clock.timestamp(), task=task.name, worker=request.hostname,
        pid=os.getpid(),
    )  # fmt: skip
    limit = _hard_limit(task, message.get("timelimit"))
    return live.record_here(event, hop=int(envelope.get("hop", 0)), time_limit=limit, collect=True)


def say_started(
    task: Any, request: Any, envelope: dict[str, Any], hop: int, *, died: bool = False, alone: bool = False
) -> Reply:
    """Record the start of an attempt.

    Args:
        died: the process that worked on the last attempt is gone.
        alone: nothing else is at work in this process, or it was waited for that long enough.

    Raises:
        Waits: a limit stands in the way, and the run waits for it.
        Reject: the server is away, and nobody could say whether the run may start. Its message goes back, and
            the attempt does not count.
    """
    early = None if died or alone or request.is_eager else take_start()
    if early is not None:
        if needs_no_leave():
            request.errands_start = early
            return _AS_EXPECTED
        try:
            said: Reply = green.wait(early)
            return said
        except redis.RedisError as exc:
            raise Reject(exc, requeue=True) from exc
    facts: dict[str, Any] = {}
    if not envelope.get("told"):  # its sender may not have told what the run is about
        facts = {
            "queue": (request.delivery_info or {}).get("routing_key") or getattr(task, "queue", None),
            "owner": envelope.get("owner"),
            "subject": envelope.get("subject") or task.arguments.subject_of(request.args, request.kwargs),
            # Celery calls a run that retries itself its own parent.
            "parent_id": request.parent_id if request.parent_id != request.id else None,
            "root_id": request.root_id,
            "args": list(request.args or ()),
            "kwargs": dict(request.kwargs or {}),
            "max_attempts": task.rules.policy.times + 1,
            "options": told(request, envelope),
        }
    event = Event(
        kind=Kind.STARTED, run_id=request.id, at=clock.timestamp(), task=task.name, worker=request.hostname,
        pid=os.getpid(), **facts,
    )  # fmt: skip
    asked = admission.asked_by(task, request) if task.rules.of_starts else []
    try:
        reply: Reply = task.app.live.record(
            event, hop=hop, redelivered=redelivered(request), copy=bool(envelope.get("copy")),
            died=died, neighbours=not alone and redelivered(request) and has_neighbours(),
            time_limit=_hard_limit(task, request.timelimit), rules=admission.as_rules(task, asked),
        )  # fmt: skip
    except redis.RedisError as exc:
        raise Reject(exc, requeue=True) from exc
    if reply.verdict is Verdict.LIMITED:
        admission.wait(task, request, hop, reply, asked)
        end_late(task, request, envelope)
        return say_started(task, request, envelope, hop, died=died, alone=alone)
    return reply


def end_late(task: Any, request: Any, envelope: dict[str, Any]) -> None:
    """End a run whose deadline has passed while it waited for a limit, as a worker that gets it then does.

    Raises:
        Ignore: the run has expired.
    """
    deadline, now = deadlines.of(envelope), clock.timestamp()
    if deadline is not None and now >= deadline:
        task.app.live.record(Event(kind=Kind.EXPIRED, run_id=request.id, at=now, task=task.name))
        raise Ignore("its deadline has passed")


def _hard_limit(task: Any, of_message: Any) -> float:
    """Seconds after which an attempt at `task` has been ended by force."""
    own = (of_message or (None, None))[0]
    return float(own or task.time_limit or task.app.settings.time_limit) + LOOK_AGAIN


def redelivered(request: Any) -> bool:
    """Whether the broker gave this message out before."""
    return bool((request.delivery_info or {}).get("redelivered"))


def told(request: Any, envelope: dict[str, Any]) -> dict[str, Any] | None:
    """Where the message waited in its queue; None where it waited with all others."""
    known = {"priority": (request.delivery_info or {}).get("priority"), "fair": envelope.get("fair")}
    return {name: value for name, value in known.items() if value} or None


def envelope_of(request: Any) -> dict[str, Any]:
    """What we wrote into the message's headers; empty for a plain Celery producer."""
    envelope = (request.headers or {}).get("errands")
    return envelope if isinstance(envelope, dict) else {}
