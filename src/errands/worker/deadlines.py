"""The deadline of a run, in its worker: no attempt goes on after it, and none follows."""

from __future__ import annotations

from typing import Any

from errands.core import clock
from errands.core.errors import DeadlinePassed, Snooze
from errands.core.outcome import Again, Outcome, Over

GRACE = 5.0  # seconds that a task has from the soft limit at its deadline until its hard one


def of(envelope: dict[str, Any]) -> float | None:
    """The moment after which the run is over, in seconds since 1970; None where there is none."""
    found = envelope.get("deadline")
    return float(found) if isinstance(found, int | float) else None


def clipped(
    request: dict[str, Any], hard: float | None, soft: float | None
) -> tuple[float | None, float | None]:
    """The time limits of an attempt that begins now, hard and soft, no longer than its run may last."""
    envelope = request.get("errands")
    deadline = of(envelope) if isinstance(envelope, dict) else None
    if deadline is None:
        return hard, soft
    left = max(0.001, deadline - clock.timestamp())
    return min(hard or left + GRACE, left + GRACE), min(soft or left, left)


def in_time(outcome: Outcome, envelope: dict[str, Any]) -> Outcome:
    """`outcome`, or the end of the run where its next attempt would come too late."""
    deadline = of(envelope)
    if deadline is None or not isinstance(outcome, Again) or clock.timestamp() + outcome.wait < deadline:
        return outcome
    error = outcome.error
    if isinstance(error, Snooze):
        error = DeadlinePassed(f"put off past its deadline: {error}")
    return Over(error, discarded=False)
