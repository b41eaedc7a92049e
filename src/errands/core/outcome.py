"""What one attempt decided, as a value. `worker/execution.py` makes it; nothing else does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from errands.core.errors import Discard, InvalidArguments, SecretError, Snooze
from errands.core.retry import Retry


@dataclass(frozen=True, slots=True)
class Done:
    """The attempt succeeded with `value`."""

    value: Any


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt follows in `wait` seconds. A snooze is not `counted`."""

    error: BaseException
    wait: float
    counted: bool


@dataclass(frozen=True, slots=True)
class Over:
    """No further attempt: the tries are used up, or (`discarded`) none would help."""

    error: BaseException
    discarded: bool


Outcome = Done | Again | Over

# Nothing that a repetition could mend: the same message would fail in the same way.
_PERMANENT = (Discard, InvalidArguments, SecretError)


def decide(error: BaseException, policy: Retry, tries: int) -> Again | Over:
    """What follows from `error`, after `tries` attempts that count (this one included)."""
    if isinstance(error, Snooze):
        return Again(error, error.seconds, counted=False)
    if isinstance(error, _PERMANENT):
        return Over(error, discarded=True)
    if tries > policy.times or not policy.covers(error):
        return Over(error, discarded=False)
    return Again(error, policy.wait(tries, error), counted=True)
