"""When Celery's schedules are due: the same answer in every process, whenever it is asked.

Celery's own `is_due` counts from the moment at which it is asked; two beats would never agree on a due time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from celery.canvas import Signature
from celery.schedules import BaseSchedule, crontab, maybe_schedule, schedule
from celery.utils.time import remaining

from errands.core.errors import ConfigurationError
from errands.core.schedule import Schedule, due_times, whole


class CeleryRule:
    """A schedule of Celery's (`crontab`, `schedule`, `solar`) as a rule of ours.

    Args:
        rule: it; a `crontab` is read in its app's time zone.
    """

    def __init__(self, rule: BaseSchedule) -> None:
        self.rule = rule

    def __str__(self) -> str:
        return repr(self.rule)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CeleryRule) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def next(self, after: datetime) -> datetime | None:
        """As `Rule.next`."""
        return whole(first_due(self.rule, after))

    def near(self, after: datetime, moment: datetime) -> datetime:
        """As `Rule.near`: an interval goes on from the last due time."""
        if type(self.rule) is schedule and not self.rule.relative and moment > after:
            every = _every(self.rule)
            return after + (moment - after) // every * every
        return moment


def declared(entries: Mapping[str, Any], app: Any) -> dict[str, Schedule]:
    """The schedules in Celery's `beat_schedule`.

    Raises:
        ConfigurationError: an entry says nothing that can be a schedule.
    """
    found = {}
    for name, entry in entries.items():
        try:
            rule = CeleryRule(maybe_schedule(entry["schedule"], entry.get("relative", False), app=app))
            found[name] = Schedule(
                name=name, task=entry["task"], rule=rule, args=tuple(entry.get("args") or ()),
                kwargs=dict(entry.get("kwargs") or {}), options=dict(entry.get("options") or {}),
            )  # fmt: skip
        except (KeyError, TypeError) as exc:
            raise ConfigurationError(f"schedule {name!r} in beat_schedule: {exc!r}") from exc
    return found


def celery_entries(app: Any) -> dict[str, Any]:
    """The app's `beat_schedule`, and what Celery adds to it for results that have to be cleaned up."""
    entries = dict(app.conf.beat_schedule or {})
    if app.conf.result_expires and not app.backend.supports_autoexpire:
        entries.setdefault(
            "celery.backend_cleanup",
            {
                "task": "celery.backend_cleanup",
                "schedule": crontab("0", "4", "*"),
                "options": {"expires": 12 * 3600},
            },
        )
    return entries


def read_scheduled(call: Any) -> tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]:
    """What is to be run: the task's name, its args, its kwargs, and options of `apply_async`.

    Raises:
        ConfigurationError: it is no task, no name of one, and no signature of one.
    """
    if isinstance(call, str):
        return call, (), {}, {}
    if isinstance(call, Signature):
        if call.subtask_type is not None:
            raise ConfigurationError(
                f"a schedule runs one task, not a {call.subtask_type}: let the task send the others"
            )
        return call.task, tuple(call.args), dict(call.kwargs), dict(call.options)
    name = getattr(call, "name", None)
    if isinstance(name, str):
        return name, (), {}, {}
    raise ConfigurationError(f"{call!r} cannot be scheduled: give a task, its name, or a signature of it")


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
    """The last due time of a Celery schedule in (`after`, `now`]; None where there is none."""
    found = due_times(CeleryRule(rule), after, now, 1)
    return found[-1] if found else None


def _every(rule: Any) -> timedelta:
    every = cast(timedelta, rule.run_every)
    if every <= timedelta(0):
        raise ValueError(f"{rule!r}: a schedule needs an interval longer than nothing")
    return every
