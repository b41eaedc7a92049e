"""What `errands.store.reads` returns: frozen values, one class a table."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from errands.core.states import State


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run. `args` and `kwargs` show secrets as `***`; `message` holds them sealed."""

    id: str
    task: str | None
    queue: str | None
    state: State
    owner: str | None
    parent_id: str | None
    root_id: str | None
    args: list[Any] | None
    kwargs: dict[str, Any] | None
    message: dict[str, Any] | None
    attempt: int
    max_attempts: int | None
    created_at: datetime
    queued_at: datetime | None
    eta: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    reopened_at: datetime | None
    updated_at: datetime
    duration: float | None
    worker: str | None
    result: Any
    error_type: str | None
    error_message: str | None
    error_traceback: str | None
    progress: dict[str, Any] | None
    subject: str | None = None

    @property
    def cursor(self) -> str:
        """Where a list goes on after this run: the `before` of `runs`."""
        return f"{self.created_at.isoformat()}~{self.id}"


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt. `outcome` is None while it runs; `lost` when its worker died."""

    run_id: str
    number: int
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    worker: str | None
    duration: float | None
    error_type: str | None
    error_message: str | None
    error_traceback: str | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A run that was committed with its transaction. `attempt` and `failed` are told of runs that are sent
    again: the newest attempt, and how many failed before it."""

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    owner: str | None
    created_at: datetime
    eta: datetime | None
    tries: int
    retry_at: datetime | None
    last_error: str | None
    sent_at: datetime | None = None
    attempt: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetterRow:
    """A message that nobody will try again by itself."""

    id: str
    run_id: str | None
    task: str | None
    queue: str | None
    reason: str
    message: dict[str, Any] | None
    at: datetime
    replayed_at: datetime | None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """What somebody did."""

    id: str
    at: datetime
    actor: str
    action: str
    target: str | None
    reason: str | None
    details: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations of one task's attempts: `buckets` are (upper bound in seconds, how many took up to that)."""

    task: str
    buckets: tuple[tuple[float, int], ...]
    count: int
    sum: float


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the ledger began. `runs` is by task and state ("snoozed", "dead_letter" among them)."""

    runs: dict[tuple[str, str], int]
    durations: tuple[Histogram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; None and an empty collection mean any.

    `ids_like` finds runs whose id or task begins with it. `since` and `until` bound `created_at`.
    """

    states: Collection[State] = ()
    task: str | None = None
    queue: str | None = None
    owner: str | None = None
    worker: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids_like: str | None = None
