"""The states of a run, the legal moves between them, and what Celery calls them.

`docs/states.md` draws the picture.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a run is in its life."""

    SCHEDULED = "scheduled"  # accepted, due later
    QUEUED = "queued"  # accepted, waiting for a worker
    RUNNING = "running"  # a worker is at it
    RETRYING = "retrying"  # an attempt failed or was snoozed; another will follow
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REVOKED = "revoked"
    DISCARDED = "discarded"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        """True when no further attempt will follow by itself."""
        return self in FINAL


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.REVOKED, State.DISCARDED, State.EXPIRED})
OPEN = frozenset(State) - FINAL

_ENDED_BY_A_WORKER = frozenset({State.QUEUED, State.SCHEDULED, State.RUNNING, State.RETRYING})

# To each state, the states a run may come from. `None` in a set means: no run of this id is known yet.
# A worker may meet a run before its "queued" was written (plain Celery producers never write it), so every
# move of a worker may also be the first thing that is heard of a run.
MOVES: dict[State, frozenset[State | None]] = {
    State.SCHEDULED: frozenset({None}),
    State.QUEUED: frozenset({None}),
    # running → running: the worker of the last attempt died, and another one took the message.
    State.RUNNING: frozenset({None, *OPEN}),
    State.RETRYING: frozenset({None, *OPEN}),
    State.SUCCEEDED: frozenset({None, *_ENDED_BY_A_WORKER}),
    State.FAILED: frozenset({None, *_ENDED_BY_A_WORKER}),
    State.DISCARDED: frozenset({None, *_ENDED_BY_A_WORKER}),
    State.REVOKED: frozenset({None, *OPEN}),
    State.EXPIRED: frozenset({None, *OPEN}),
}

_CELERY = {
    State.SCHEDULED: "PENDING",
    State.QUEUED: "PENDING",
    State.RUNNING: "STARTED",
    State.RETRYING: "RETRY",
    State.SUCCEEDED: "SUCCESS",
    State.FAILED: "FAILURE",
    State.DISCARDED: "FAILURE",
    State.EXPIRED: "REVOKED",
    State.REVOKED: "REVOKED",
}


def celery_status(state: State, *, has_progress: bool = False) -> str:
    """What Celery and the five systems call this state.

    A running run that has told its progress is `PROGRESS`. A discarded run is a `FAILURE`, an expired one
    `REVOKED`, as Celery itself has it.
    """
    if state is State.RUNNING and has_progress:
        return "PROGRESS"
    return _CELERY[state]


def may_move(before: State | None, after: State) -> bool:
    """Whether a run may go from `before` (None: not known yet) to `after`."""
    return before in MOVES[after]
