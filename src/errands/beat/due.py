"""When a Celery schedule is due: the same answer in every process, whenever it is asked.

Celery's own `is_due` counts from the moment at which it is asked; two beats would never agree on a due time.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from celery.schedules import crontab, schedule
from celery.utils.time import remaining

_NAMESPACE = uuid.UUID("5f0c7f4e-6f0a-5c8e-9a53-3f1d1c1f7a10")


def first_due(rule: Any, after: datetime) -> datetime:
    """The first due time later than `after`, in UTC.

    Args:
        rule: a Celery schedule: `crontab` (read in its app's time zone), `schedule`, `solar`.
        after: with a time zone.
    """
    if isinstance(rule, crontab):
        start, step, _ = rule.remaining_delta(after)
        local: datetime = start + step
        due = local.astimezone(UTC)
        # In the hour that the end of daylight saving repeats, a wall clock time comes twice.
        return due if due > after else local.replace(fold=1).astimezone(UTC)
    if type(rule) is schedule:
        if not rule.relative:
            return after + _every(rule)
        begin: datetime = rule.maybe_make_aware(after)
        wait: timedelta = remaining(begin, _every(rule), begin, relative=True)
        return (begin + wait).astimezone(UTC)
    # Others count from now; whole seconds make the answer the same each time.
    due = cast(datetime, rule.maybe_make_aware(rule.now()) + rule.remaining_estimate(after))
    return (due + timedelta(seconds=0.5)).replace(microsecond=0).astimezone(UTC)


def latest_due(rule: Any, after: datetime, now: datetime) -> datetime | None:
    """The last due time in (`after`, `now`]; None where there is none."""
    if type(rule) is schedule and not rule.relative:
        steps = (now - after) // _every(rule)
        return after + steps * _every(rule) if steps > 0 else None
    due = first_due(rule, after)
    if due > now:
        return None
    # From close by to far away, so that months of a beat's absence are not walked through one by one.
    back = timedelta(minutes=2)
    while now - back > due:
        near = first_due(rule, now - back)
        if near <= now:
            due = near
            break
        back *= 2
    while (following := first_due(rule, due)) <= now and following > due:
        due = following
    return due


def _every(rule: Any) -> timedelta:
    every = cast(timedelta, rule.run_every)
    if every <= timedelta(0):
        raise ValueError(f"{rule!r}: a schedule needs an interval longer than nothing")
    return every


def run_id(app_name: str, schedule_name: str, due: datetime) -> str:
    """The id of the run for one due time: made of nothing else, so that it is made once, whoever sends it."""
    return str(uuid.uuid5(_NAMESPACE, f"{app_name}/{schedule_name}/{due.astimezone(UTC).isoformat()}"))
