"""One run as people may see it, whichever of the three places that know runs it was found in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from errands.broker.runs import LiveRun
from errands.core.events import Event, Kind
from errands.core.payloads import payload_bytes, without_reference
from errands.core.secrets import mask
from errands.core.states import State, celery_status
from errands.core.task import level_of
from errands.store.rows import OutboxRow, RunRow

_WAITING = frozenset({State.SCHEDULED, State.QUEUED})
_WITH_ERROR = frozenset({State.FAILED, State.DISCARDED, State.RETRYING})
# These are discarded too, but their texts quote arguments and keys; a `Discard` is written for people.
_NOT_FOR_USERS = frozenset(
    {"EffectUnknown", "InvalidArguments", "PayloadLost", "PayloadTooLarge", "SecretError"}
)
# What Valkey keeps under the same name.
_SAME = (
    "task", "queue", "owner", "subject", "worker", "max_attempts", "result", "error", "progress",
    "parent_id", "root_id",
    "waits_for", "checkpoint",
)  # fmt: skip
_PROGRESS_STATUS = {
    State.SCHEDULED: "queued",
    State.QUEUED: "queued",
    State.RUNNING: "processing",
    State.RETRYING: "processing",
    State.SUCCEEDED: "completed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run, with what is left over from earlier attempts taken out: an error only where one matters now, a
    result only after success, an end only where it has ended.

    `error` is {"type", "message", "traceback"}; `message` is (args, kwargs) with secrets still sealed;
    `waits_for` says which limit it waits for (see `docs/limits.md`);
    `requests` is how many the run stands for (see `docs/unique.md`); None where Valkey has forgotten it.
    """

    id: str
    state: State
    task: str | None = None
    queue: str | None = None
    owner: str | None = None
    subject: str | None = None
    worker: str | None = None
    attempt: int = 0
    max_attempts: int | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    eta: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    parent_id: str | None = None
    root_id: str | None = None
    priority: str = "normal"
    tenant: str | None = None
    message: tuple[list[Any], dict[str, Any]] | None = None
    requests: int | None = None
    waits_for: str | None = None
    checkpoint: dict[str, Any] | None = None
    expires_at: datetime | None = None

    @classmethod
    def of_live(cls, run: LiveRun) -> RunView:
        """The view of what Valkey knows."""
        facts = run.facts
        message = (facts["args"], facts.get("kwargs") or {}) if "args" in facts else None
        known: dict[str, Any] = {name: facts.get(name) for name in _SAME}
        known |= _place(facts.get("options")) | {"requests": facts.get("requests", 1)}
        for name in ("eta", "queued_at", "started_at", "finished_at"):
            known[name] = _moment(facts.get(name))
        known["expires_at"] = _moment(facts.get("expires"))
        return _tidy(cls(id=run.run_id, state=run.state, attempt=run.attempt, message=message, **known))

    @classmethod
    def of_row(cls, row: RunRow) -> RunView:
        """The view of what the ledger knows."""
        error = None
        if row.error_type or row.error_message:
            error = {"type": row.error_type, "message": row.error_message, "traceback": row.error_traceback}
        message = (row.message["args"], row.message["kwargs"]) if row.message else None
        place = _place(row.message.get("options") if row.message else None)
        return _tidy(
            cls(
                id=row.id, state=row.state, task=row.task, queue=row.queue, owner=row.owner,
                subject=row.subject, worker=row.worker, attempt=row.attempt,
                max_attempts=row.max_attempts, result=row.result, error=error, progress=row.progress,
                eta=row.eta, expires_at=row.expires_at, queued_at=row.queued_at,
                started_at=row.started_at, finished_at=row.finished_at, parent_id=row.parent_id,
                root_id=row.root_id, message=message, **place,
            )
        )  # fmt: skip

    @classmethod
    def of_outbox(cls, row: OutboxRow) -> RunView:
        """The view of a run that was committed and waits to be sent."""
        return cls(
            id=row.id, state=State.QUEUED, task=row.task, queue=row.options.get("queue"), owner=row.owner,
            eta=row.eta, queued_at=row.created_at, message=(row.args, row.kwargs), **_place(row.options),
        )  # fmt: skip

    def after(self, event: Event) -> RunView:
        """The view after one more event."""
        state = event.state
        if event.kind is Kind.LIMITED:
            return _tidy(replace(self, waits_for=event.note))
        if state is None or event.kind is Kind.QUEUED:  # "queued" may be written after the worker's "started"
            return replace(self, progress=event.progress) if event.progress else self
        changes: dict[str, Any] = {"state": state, "result": event.result, "error": event.error}
        changes["eta"] = _moment(event.eta)
        if event.kind is Kind.STARTED:
            changes |= {"started_at": _moment(event.at), "worker": event.worker, "progress": None}
        elif event.progress is not None:
            changes["progress"] = event.progress
        if state.final:
            changes["finished_at"] = _moment(event.at)
        if event.attempt:
            changes["attempt"] = event.attempt
        return _tidy(replace(self, **changes))

    @property
    def status(self) -> str:
        """The state in Celery's word."""
        return celery_status(self.state, has_progress=self.progress is not None)

    def as_dict(self, *, in_full: bool) -> dict[str, Any]:
        """The run as JSON has it.

        Args:
            in_full: for admins: whose it is, where it ran, its arguments (secrets as `***`), the error's own
                text. Others get an error that tells nothing of the inside.
        """
        answer = self.as_status(in_full=in_full) | {
            "task": self.task,
            "progress": _plain(self.progress),
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "priority": self.priority,
            "requests": self.requests,
            "waits_for": mask(self.waits_for),
            "error_type": self.error.get("type") if self.error else None,
            "eta": iso(self.eta),
            "expires_at": iso(self.expires_at),
            "queued_at": iso(self.queued_at),
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
        }
        if in_full:
            args, kwargs = self.message or (None, None)
            answer |= {"owner": self.owner, "subject": self.subject, "tenant": self.tenant}
            answer |= {"queue": self.queue, "worker": self.worker}
            answer |= {"checkpoint": _plain(self.checkpoint)}
            answer |= {"parent_id": self.parent_id, "root_id": self.root_id}
            answer |= {"args": _plain(args), "kwargs": _plain(without_reference(kwargs))}
            answer |= {"payload_bytes": payload_bytes(kwargs)}
        return answer

    def as_status(self, *, in_full: bool) -> dict[str, Any]:
        """The short answer: is it over, and what came of it."""
        return {
            "task_id": self.id,
            "status": self.status,
            "state": self.state.value,
            "ready": self.state.final,
            "successful": self.state is State.SUCCEEDED,
            "result": _plain(self.result),
            "error": self.error_text(in_full=in_full),
        }

    def as_progress(self, *, in_full: bool) -> dict[str, Any]:
        """How far it is, for a progress bar. What has succeeded is at 100 %, told its progress or not."""
        told = _plain(self.progress) or {}
        total, succeeded = told.get("total"), self.state is State.SUCCEEDED
        return {
            "task_id": self.id,
            "status": _PROGRESS_STATUS.get(self.state, "failed"),
            "current": total if succeeded and total is not None else told.get("current", 0),
            "total": total,
            "percentage": 100 if succeeded else told.get("percentage", 0),
            "note": told.get("note", ""),
            "result": _plain(self.result),
            "error": self.error_text(in_full=in_full),
        }

    def error_text(self, *, in_full: bool) -> str | None:
        """What went wrong, in words; None where nothing did. See `as_dict` for `in_full`."""
        if self.state is State.REVOKED:
            return "The run was revoked."
        if self.state is State.EXPIRED:
            return "The run expired before a worker could start it."
        if self.state not in _WITH_ERROR or self.error is None:
            return None
        kind, text = self.error.get("type") or "Error", self.error.get("message")
        written_for_people = self.state is State.DISCARDED and kind not in _NOT_FOR_USERS
        if text and (in_full or written_for_people):
            return str(mask(text))
        if self.state is State.RETRYING:
            return f"The last attempt failed ({kind}); another one follows."
        return f"The task failed ({kind})."


def iso(moment: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tidy(view: RunView) -> RunView:
    state, error = view.state, view.error
    if state not in _WITH_ERROR or (error and error.get("type") == "Snooze"):
        error = None
    due = view.eta if state in (State.SCHEDULED, State.RETRYING) else None
    return replace(
        view,
        result=view.result if state is State.SUCCEEDED else None,
        error=error,
        progress=None if state in _WAITING else view.progress,
        eta=due,
        waits_for=view.waits_for if state in (*_WAITING, State.RETRYING) else None,
        finished_at=view.finished_at if state.final else None,
        started_at=None if state in _WAITING else view.started_at,
    )


def _place(options: Any) -> dict[str, Any]:
    """Where a message waits in its queue: its level, and whose turn it takes there."""
    told = options if isinstance(options, dict) else {}
    priority = told.get("priority")
    return {
        "priority": level_of(priority if isinstance(priority, int) else None),
        "tenant": told.get("fair"),
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _plain(value: Any) -> Any:
    """`value` without secrets, and without NaN and infinities, which are no JSON (RFC 8259, section 6)."""
    return mask(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
