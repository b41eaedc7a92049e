"""What happened to a run, as a value. The ledger is nothing but these, added up."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import msgspec

from errands.core.states import State


class Kind(StrEnum):
    """The kinds of events, in the order of a run's life."""

    QUEUED = "queued"  # accepted; with `eta` in the future: scheduled
    REPLACED = "replaced"  # a later request gave the waiting run new arguments
    LIMITED = "limited"  # it waits for a limit, as `note` says; its attempt did not begin
    STARTED = "started"
    PROGRESS = "progress"
    CHECKPOINT = "checkpoint"  # how far a loop came that goes on from there after a crash
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


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened to one run. Absent facts are None and are not written down.

    Times are seconds since 1970 UTC. `args` and `kwargs` are as in the message: validated, and sealed where
    they are secret. `error` is {"type", "message", "traceback"}; `progress` is {"current", "total",
    "percentage", "note"}; `checkpoint` is {name of a loop: {"key", "count"}}. `attempt` counts from 1; 0
    before the first.
    """

    kind: Kind
    run_id: str
    at: float
    task: str | None = None
    queue: str | None = None
    owner: str | None = None
    subject: str | None = None  # the person whom it is about
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
    pid: int | None = None  # of the worker's process that works on the attempt
    result: Any = None
    error: dict[str, str] | None = None
    progress: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    duration: float | None = None  # seconds that the attempt took
    note: str | None = None
    message: dict[str, Any] | None = None

    @property
    def state(self) -> State | None:
        """The state that the run has after this event; None where the event moves nothing."""
        if self.kind is Kind.QUEUED:
            return State.SCHEDULED if self.eta is not None and self.eta > self.at else State.QUEUED
        return _STATE_AFTER.get(self.kind)

    def to_json(self) -> bytes:
        """One line of JSON; `from_json` reads it back."""
        try:
            return _ENCODER.encode(self)
        except UnicodeEncodeError:  # halves of surrogate pairs: JSON has them escaped only
            return json.dumps(_given(self), default=str, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Event:
        """Read what `to_json` wrote. Fields of a later version are passed over.

        Raises:
            ValueError: it is no event.
        """
        try:
            return _DECODER.decode(text)
        except (msgspec.MsgspecError, UnicodeError) as exc:
            try:
                return msgspec.convert(json.loads(text), cls)
            except (ValueError, TypeError, RecursionError):
                raise ValueError(f"not an event: {text[:200]!r} ({exc})") from exc


def _given(event: Event) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(event).items() if value is not None}


# What JSON does not know (a message of a plain Celery producer may carry it) is told as text.
_ENCODER = msgspec.json.Encoder(enc_hook=str)
_DECODER = msgspec.json.Decoder(Event)
