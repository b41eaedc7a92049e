"""What happened to a run, as a value. The ledger is nothing but these, added up."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from errands.core.states import State


class Kind(StrEnum):
    """The kinds of events, in the order of a run's life."""

    QUEUED = "queued"  # accepted; with `eta` in the future: scheduled
    STARTED = "started"
    PROGRESS = "progress"
    LOG = "log"
    RETRYING = "retrying"  # the attempt failed; another follows at `eta`
    SNOOZED = "snoozed"  # the attempt put itself off until `eta`; it does not count
    LOST = "lost"  # the process that worked on the attempt died; the message goes back to its queue
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REOPENED = "reopened"  # a person asked for another attempt at a run that had ended
    DEAD_LETTER = "dead_letter"  # a message that nobody will try again, kept whole in `message`


_STATE_AFTER = {
    Kind.STARTED: State.RUNNING,
    Kind.RETRYING: State.RETRYING,
    Kind.SNOOZED: State.RETRYING,
    Kind.LOST: State.RETRYING,
    Kind.SUCCEEDED: State.SUCCEEDED,
    Kind.FAILED: State.FAILED,
    Kind.DISCARDED: State.DISCARDED,
    Kind.REVOKED: State.REVOKED,
    Kind.EXPIRED: State.EXPIRED,
    Kind.REOPENED: State.QUEUED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one run. Absent facts are None and are not written down.

    Times are seconds since 1970 UTC. `args` and `kwargs` are as in the message: validated, and sealed where
    they are secret. `error` is {"type", "message", "traceback"}; `progress` is {"current", "total",
    "percentage", "note"}. `attempt` counts from 1; 0 before the first.
    """

    kind: Kind
    run_id: str
    at: float
    task: str | None = None
    queue: str | None = None
    owner: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    eta: float | None = None
    expires: float | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    worker: str | None = None
    result: Any = None
    error: dict[str, str] | None = None
    progress: dict[str, Any] | None = None
    duration: float | None = None  # seconds that the attempt took
    note: str | None = None
    message: dict[str, Any] | None = None

    @property
    def state(self) -> State | None:
        """The state that the run has after this event; None where the event moves nothing."""
        if self.kind is Kind.QUEUED:
            return State.SCHEDULED if self.eta is not None and self.eta > self.at else State.QUEUED
        return _STATE_AFTER.get(self.kind)

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back."""
        values = ((name, getattr(self, name)) for name in _NAMES)
        return json.dumps({name: value for name, value in values if value is not None}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Event:
        """Read what `to_json` wrote. Fields of a later version are passed over.

        Raises:
            ValueError: it is no event.
        """
        try:
            values = json.loads(text)
            known = {name: values[name] for name in _NAMES if name in values}
            return cls(**{**known, "kind": Kind(known["kind"])})
        except (TypeError, KeyError) as exc:
            raise ValueError(f"not an event: {text[:200]!r}") from exc


_NAMES = tuple(field.name for field in fields(Event))
