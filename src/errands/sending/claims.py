"""Claims of unique runs that do not go straight to our broker: Celery sends them, or they stay here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import redis
from celery.result import EagerResult

from errands.broker.message import any_payload
from errands.broker.runs import LiveRun, Verdict
from errands.core import clock
from errands.core.errors import ErrandsError
from errands.core.events import Event, Kind
from errands.core.states import State, celery_status
from errands.core.unique import Unique
from errands.sending import unique
from errands.task import Task
from errands.worker.inline_claims import Claims, replacement

if TYPE_CHECKING:
    from errands.sending.celerys_way import CelerysWay

logger = logging.getLogger("errands")


def claim(
    app: CelerysWay, rule: Unique, task: Task[..., Any], args: Any, kwargs: Any, run_id: str,
    due: float | None, *, handed_out: bool = False,
) -> str | None:  # fmt: skip
    """Let a run that Celery is about to send stand for its work. One round trip.

    Returns:
        The id of the run that stands for it already; None where it may be sent.
    """
    queued = Event(kind=Kind.QUEUED, run_id=run_id, at=clock.timestamp(), task=task.name, eta=due)
    asked = unique.claim_of(rule, task, any_payload(args, kwargs), queued, handed_out=handed_out)
    if asked is None:
        return None
    if app.is_capturing:
        return _claim_captured(app, run_id, asked)
    reply = app.live.claim(run_id, asked)
    return reply.about if reply.verdict is Verdict.DUPLICATE else None


def look(app: CelerysWay, rule: Unique, task: Task[..., Any], args: Any, kwargs: Any) -> str | None:
    """The id of the run that stands for this work now, and claim nothing.

    Raises:
        redis.RedisError: the server does not answer at once.
    """
    queued = Event(kind=Kind.QUEUED, run_id="", at=clock.timestamp(), task=task.name)
    asked = unique.claim_of(rule, task, any_payload(args, kwargs), queued, on="look")
    if asked is None:
        return None
    if app.is_capturing:
        return _claim_captured(app, "", asked)
    reply = app.live.claim("", asked, patience=0)
    return reply.about if reply.verdict is Verdict.DUPLICATE else None


def eager_result(run: LiveRun | None) -> EagerResult:
    """In inline mode: the result of a run that was there already."""
    assert run is not None  # noqa: S101 — it stands for others
    value, error = run.facts.get("result"), run.facts.get("error")
    if run.final and error:
        value = ErrandsError(f"{error.get('type')}: {error.get('message')}")
    return EagerResult(run.run_id, value, celery_status(run.state))


def tell_unsent(app: CelerysWay, run_id: str, task: str, why: Exception) -> None:
    """End a run that holds a claim and could not be sent: others may have been given its id."""
    error = {"type": type(why).__name__, "message": f"it could not be sent: {why}"}
    try:
        app.live.record(Event(kind=Kind.FAILED, run_id=run_id, at=clock.timestamp(), task=task, error=error))
    except redis.RedisError:
        logger.warning("%s[%s] was not sent; its claim ends in half a minute", task, run_id, exc_info=True)


def of_capture(app: Any, items: list[dict[str, Any]]) -> Claims:
    """The claims of a block that captures what is sent, in `items`; what was drained has run inline."""

    def state_of(run_id: str) -> State | None:
        item = _item(items, run_id)
        if item is not None:
            return State.SCHEDULED if item.get("countdown") or item.get("eta") else State.QUEUED
        run = app._inline_runs.get(run_id)
        return run.state if run is not None else None

    return Claims(state_of)


def _claim_captured(app: CelerysWay, run_id: str, asked: dict[str, Any]) -> str | None:
    assert app._capture is not None  # noqa: S101 — the caller looked
    assert app._captured_claims is not None  # noqa: S101
    held = app._captured_claims.claim(run_id, asked)
    if held is None:
        return None
    item = _item(app._capture, held.run_id)
    if item is not None and "new" in asked:
        event = replacement(held, asked)
        item["args"], item["kwargs"] = tuple(event.args or ()), dict(event.kwargs or {})
        if event.eta is not None:
            item["countdown"], item["eta"] = event.eta - clock.timestamp(), None
    return held.run_id


def _item(items: list[dict[str, Any]], run_id: str) -> dict[str, Any] | None:
    return next((item for item in items if item["id"] == run_id), None)
