"""When a run is over, whatever it does: what its task and its call say of that, and what its message carries.

The moment travels in the message's header `errands`, so that retries know it; and as Celery's `expires`, so
that a run whose time is over does not start, on whichever broker it waited.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from errands.core.errors import InvalidArguments
from errands.core.unique import is_time
from errands.task import Task

FIELD = "deadline"  # of the header `errands`: seconds since 1970


def seconds_of(name: str, task: Any, options: dict[str, Any]) -> float | None:
    """Seconds that a run has from its acceptance: the call's own `deadline`, else the task's, else None.

    Raises:
        InvalidArguments: the call gives itself no time at all.
    """
    given = options.get("deadline")
    if given is None:
        return task.rules.deadline if isinstance(task, Task) else None
    if not is_time(given):
        raise InvalidArguments(name, [f"deadline={given!r}: give the seconds that the run has, more than 0"])
    return float(given)


def moment(deadline: float) -> str:
    """A deadline as messages write times: ISO 8601, UTC."""
    return datetime.fromtimestamp(deadline, UTC).isoformat()
