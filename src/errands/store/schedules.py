"""Schedules as rows: what people said of them, and what became of each due time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Table, and_, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from errands.core import clock
from errands.core.conditions import from_data
from errands.core.cron import Cron
from errands.core.errors import ConfigurationError
from errands.core.schedule import DueTime, Rule, Schedule, checked_name, rule_of
from errands.store.tables import runs, schedule_times, schedules

_MOST_TIMES = 10_000
_WHEN = ("cron", "every", "at")
# What a row may say of a schedule.
SAID = (
    "task", "args", "kwargs", "options", *_WHEN, "tz", "catch_up", "overlap", "jitter", "only_if", "patience",
)  # fmt: skip
_PLAIN = ("task", "catch_up", "overlap", "jitter", "patience", "kwargs", "options")


class Found(NamedTuple):
    """The schedules that hold, by name; and rows that make no sense, with what is wrong."""

    schedules: dict[str, Schedule]
    problems: dict[str, str]


# -- what people said


def rows(connection: Connection) -> list[Row[Any]]:
    """All rows, by name."""
    return list(connection.execute(select(schedules).order_by(schedules.c.name)))


def row(connection: Connection, name: str) -> Row[Any] | None:
    """The row of one schedule."""
    return connection.execute(select(schedules).where(schedules.c.name == name)).one_or_none()


def save(connection: Connection, name: str, said: Mapping[str, Any], by: str) -> None:
    """Write a row, or change what is `said` in the one that is there."""
    now = clock.now()
    values = {**said, "updated_at": now, "updated_by": by}
    statement = _insert(connection, schedules).values(name=name, created_at=now, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def remove(connection: Connection, name: str) -> bool:
    """Delete a row. False where there is none."""
    return connection.execute(delete(schedules).where(schedules.c.name == name)).rowcount == 1


def merged(
    declared: Mapping[str, Schedule], found: Iterable[Row[Any]], check: Callable[[Schedule], None]
) -> Found:
    """What the code declares, as the rows change it, and what they add to it.

    Args:
        declared: by name, what the code says.
        found: the rows.
        check: raises ConfigurationError for what the app cannot do.
    """
    schedules_found, problems = dict(declared), dict[str, str]()
    for each in found:
        try:
            made = read(declared.get(each.name), each)
            check(made)
            schedules_found[each.name] = made
        except ConfigurationError as exc:
            schedules_found.pop(each.name, None)  # rather nothing than what somebody did not want any more
            problems[each.name] = str(exc)
    return Found(schedules_found, problems)


def read(declared: Schedule | None, found: Any) -> Schedule:
    """One row, over what the code declares.

    Raises:
        ConfigurationError: the two make no schedule; it says why.
    """
    name = checked_name(found.name) if declared is None else declared.name
    if declared is None and found.task is None:
        raise ConfigurationError(
            f"schedule {name!r}: it names no task, and the code declares no such schedule"
        )
    rule = _rule(declared, found)
    said: dict[str, Any] = {each: getattr(found, each) for each in _PLAIN if getattr(found, each) is not None}
    if found.args is not None:
        said["args"] = tuple(found.args)
    if found.only_if is not None:
        said["only_if"] = from_data(found.only_if)
    changed = bool(said) or rule is not getattr(declared, "rule", None)
    said |= {"rule": rule, "paused": bool(found.paused), "resumed_at": found.resumed_at}
    if declared is None:
        made = Schedule(name=name, origin="row", since=found.updated_at, **said)
    else:
        origin = "code, changed by a row" if changed else "code"
        made = replace(declared, origin=origin, since=found.updated_at if changed else declared.since, **said)
    return made


def _rule(declared: Schedule | None, found: Any) -> Rule:
    said = {each: getattr(found, each) for each in _WHEN if getattr(found, each) is not None}
    tz = found.tz
    if declared is not None:
        if not said and tz is None:
            return declared.rule
        if isinstance(declared.rule, Cron):
            said = said or {"cron": declared.rule.line}
            tz = tz or (declared.rule.tz if "cron" in said else None)
    return rule_of(found.name, tz=tz, **said)


# -- what became of due times


def add_times(connection: Connection, times: Sequence[DueTime]) -> None:
    """Write down what became of due times; those that are there already stay as they are."""
    values = [
        {
            "schedule": time.schedule, "due": time.due, "rule": time.rule, "outcome": time.outcome,
            "at": time.at, "late": time.late, "run_id": time.run_id, "reason": time.reason,
        }
        for time in times
    ]  # fmt: skip
    if values:
        connection.execute(_insert(connection, schedule_times).on_conflict_do_nothing(), values)


def newest_times(connection: Connection) -> dict[str, DueTime]:
    """Of each schedule the newest due time."""
    table = schedule_times
    newest = (
        select(table.c.schedule, func.max(table.c.due).label("due")).group_by(table.c.schedule).subquery()
    )
    query = select(table).join(
        newest, and_(table.c.schedule == newest.c.schedule, table.c.due == newest.c.due)
    )
    return {found.schedule: _time(found) for found in connection.execute(query)}


def times(connection: Connection, name: str, limit: int = 100) -> list[DueTime]:
    """The due times of a schedule, the newest first."""
    table = schedule_times
    query = select(table).where(table.c.schedule == name).order_by(table.c.due.desc()).limit(limit)
    return [_time(found) for found in connection.execute(query)]


def time_of_run(connection: Connection, run_id: str) -> DueTime | None:
    """The due time that a run was made for; None where it was made for none."""
    table = schedule_times
    query = select(table).where(table.c.run_id == run_id, table.c.outcome == "sent")
    found = connection.execute(query).first()
    return None if found is None else _time(found)


def states(connection: Connection, run_ids: Sequence[str]) -> dict[str, str]:
    """The states of runs, as the ledger has them."""
    if not run_ids:
        return {}
    query = select(runs.c.id, runs.c.state).where(runs.c.id.in_(run_ids))
    return {found.id: found.state for found in connection.execute(query)}


def prune_times(connection: Connection, older_than: timedelta) -> int:
    """Delete what became of due times longer than `older_than` ago, and all but the newest 10,000 of each
    schedule. The newest one of each stays. Returns how many."""
    table = schedule_times
    deleted = 0
    for name, newest in connection.execute(
        select(table.c.schedule, func.max(table.c.due)).group_by(table.c.schedule)
    ).all():
        mine = table.c.schedule == name
        last_kept = (
            select(table.c.due).where(mine).order_by(table.c.due.desc()).offset(_MOST_TIMES - 1).limit(1)
        )
        bound = connection.scalar(last_kept)
        old = table.c.at < clock.now() - older_than
        if bound is not None:
            old = old | (table.c.due < bound)
        deleted += connection.execute(delete(table).where(mine, table.c.due < newest, old)).rowcount
    return deleted


def _time(found: Row[Any]) -> DueTime:
    return DueTime(
        found.schedule, found.due, found.rule, found.outcome, found.at, late=found.late, run_id=found.run_id,
        reason=found.reason,
    )  # fmt: skip


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
