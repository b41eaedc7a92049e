"""Schedules as people see them, and what they do to them: for admins only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from errands.broker.schedules import DueTimes
from errands.core import clock
from errands.core.conditions import from_data, to_data
from errands.core.errors import ActionRefused
from errands.core.schedule import DueTime, Once, Schedule, check_names, checked_name
from errands.core.secrets import mask
from errands.ops import host
from errands.ops.access import Person, require_admin
from errands.ops.audit import audited
from errands.ops.errors import ScheduleNotFound
from errands.ops.probes import broker_errors, record_errors
from errands.ops.run_view import iso
from errands.store import schedules as store

_WHEN = ("cron", "every", "at")
_SEE, _CHANGE = "see schedules", "change schedules"


class App(host.App, Protocol):
    """An `Errands` app, with its schedules."""

    @property
    def declared_schedules(self) -> Mapping[str, Schedule]: ...


class Schedules:
    """An app's schedules: what the code declares, and what people made of it."""

    def __init__(self, app: App) -> None:
        self._app = app

    # -- looking

    def all(self, person: Person, *, count: int = 5) -> list[dict[str, Any]]:
        """Every schedule: its rule, its next due times, what became of the last one.

        Args:
            person: who asks.
            count: due times to tell of each.

        Raises:
            NotAllowed: `person` is no admin.
            RecordUnavailable, BrokerUnavailable: a server does not answer.
        """
        require_admin(person, _SEE)
        found = self._found()
        last = self._last()
        states = self._states([time.run_id for time in last.values() if time.run_id])
        now = self._now()
        views = [
            _view(schedule, last.get(schedule.name), states, now, count)
            for schedule in found.schedules.values()
        ]
        views += [
            {"name": name, "problem": problem, "paused": False, "next": []}
            for name, problem in found.problems.items()
        ]
        return sorted(views, key=lambda view: str(view["name"]))

    def one(self, person: Person, name: str, *, count: int = 5) -> dict[str, Any]:
        """One schedule, with what became of its last hundred due times. Raises as `all` does, and
        ScheduleNotFound."""
        require_admin(person, _SEE)
        for view in self.all(person, count=count):
            if view["name"] == name:
                with record_errors(), self._app.database.reading() as connection:
                    return view | {"times": [_told(time) for time in store.times(connection, name)]}
        raise ScheduleNotFound(f"there is no schedule {name[:80]!r}")

    # -- doing

    def save(self, person: Person, name: str, *, reason: str | None = None, **said: Any) -> dict[str, Any]:
        """Make a schedule, or change what is `said` of one; the beat that leads heeds it within seconds.

        Args:
            person: who does it.
            name: of the schedule.
            reason: for the audit trail.
            said: as in `app.schedule`: `task`, `args`, `kwargs`, `options`, `cron`, `every`, `at`, `tz`,
                `catch_up`, `overlap`, `jitter`, `only_if`, `patience`. None goes back to what the code says.

        Raises:
            NotAllowed: `person` is no admin.
            ConfigurationError: it would make no schedule; the text says why.
            InvalidArguments, PayloadTooLarge, SecretError: the task does not take these arguments.
            ActionRefused: it would never be due.
            RecordUnavailable: the database does not answer; nothing was done.
        """
        require_admin(person, _CHANGE)
        name = checked_name(name)
        unknown = said.keys() - set(store.SAID)
        if unknown:
            raise TypeError(f"a schedule has no {', '.join(sorted(unknown))}")
        if any(said.get(each) is not None for each in _WHEN):
            said = {**dict.fromkeys(_WHEN), **({} if said.get("cron") else {"tz": None}), **said}
        if said.get("only_if") is not None:
            said["only_if"] = to_data(from_data(said["only_if"]))
        with record_errors(), self._app.database.reading() as connection:
            made = self._checked(name, store.row(connection, name), said)
        if said.get("args") is not None or said.get("kwargs") is not None:
            said |= self._arguments(made)
        with self._audited(person, "schedule.save", name, reason, mask(_plain(said))) as connection:
            store.save(connection, name, said, person.id)
        return {"name": name, "rule": str(made.rule), "next": _iso_all(made.upcoming(clock.now()))}

    def pause(self, person: Person, name: str, *, reason: str | None = None) -> dict[str, Any]:
        """Let nothing be sent until `resume`; what is due meanwhile is not caught up with.

        Raises:
            NotAllowed: `person` is no admin.
            ScheduleNotFound: there is no such schedule.
            RecordUnavailable: the database does not answer; nothing was done.
        """
        return self._set_paused(person, name, "pause", reason, {"paused": True})

    def resume(self, person: Person, name: str, *, reason: str | None = None) -> dict[str, Any]:
        """Go on with the due times that come. Arguments and errors as with `pause`."""
        return self._set_paused(person, name, "resume", reason, {"paused": False, "resumed_at": clock.now()})

    def remove(self, person: Person, name: str, *, reason: str | None = None) -> dict[str, Any]:
        """Delete what people said of a schedule: what the code says of it holds again, if it says anything.

        Raises:
            ActionRefused: the code alone says it, so it cannot be deleted here: `pause` it.
            And what `pause` raises.
        """
        require_admin(person, _CHANGE)
        with self._audited(person, "schedule.remove", name, reason, {}) as connection:
            if not store.remove(connection, name):
                if name in self._app.declared_schedules:
                    raise ActionRefused(
                        f"schedule {name!r} is declared in the code: pause it, or delete it there"
                    )
                raise ScheduleNotFound(f"there is no schedule {name[:80]!r}")
        return {"name": name, "in_code": name in self._app.declared_schedules}

    def run(self, person: Person, name: str, *, reason: str | None = None) -> dict[str, Any]:
        """Send a run now, beside the due times. Raises as `pause` does, and BrokerUnavailable."""
        require_admin(person, "start runs of schedules")
        schedule = self._found().schedules.get(name)
        if schedule is None:
            raise ScheduleNotFound(f"there is no schedule {name[:80]!r}")
        run_id = self._app.new_id()
        with self._audited(person, "schedule.run", name, reason, {"task_id": run_id}):
            pass  # before it is sent: in inline mode the run is done here, and may want the database itself
        options = {key: value for key, value in schedule.options.items() if key != "task_id"}
        headers = {**(options.pop("headers", None) or {}), "errands": {"schedule": name}}
        with broker_errors():
            self._app.tasks[schedule.task].apply_async(
                schedule.args, schedule.kwargs, task_id=run_id, headers=headers, **options
            )
            if not self._app.settings.inline:
                DueTimes(self._app.valkey, self._app.keys).started_now(name, run_id)
        return {"name": name, "task_id": run_id}

    # -- parts

    def _found(self) -> store.Found:
        with record_errors(), self._app.database.reading() as connection:
            rows = store.rows(connection)
        return store.merged(self._app.declared_schedules, rows, self._check)

    def _check(self, schedule: Schedule) -> None:
        check_names(schedule, self._app.tasks, self._app.queue_names)

    def _checked(self, name: str, row: Any, said: Mapping[str, Any]) -> Schedule:
        """The schedule that there would be."""
        blank = dict.fromkeys(store.SAID) | {"paused": False, "resumed_at": None}
        before = {} if row is None else dict(row._mapping)
        found = SimpleNamespace(**{**blank, "updated_at": clock.now(), **before, **said, "name": name})
        made = store.read(self._app.declared_schedules.get(name), found)
        self._check(made)
        if isinstance(made.rule, Once) and {"at"} & said.keys() and made.rule.at <= clock.now():
            raise ActionRefused(f"schedule {name!r}: {made.rule.at.isoformat()} has passed")
        self._arguments(made)
        return made

    def _arguments(self, schedule: Schedule) -> dict[str, Any]:
        """Its arguments as a message carries them: checked, secrets sealed."""
        task = self._app.tasks[schedule.task]
        args, kwargs = list(schedule.args), dict(schedule.kwargs)
        if getattr(task, "function", None) is not None:
            args, kwargs = self._app.prepare(task, args, kwargs)
        return {"args": list(args), "kwargs": dict(kwargs)}

    def _set_paused(
        self, person: Person, name: str, action: str, reason: str | None, said: dict[str, Any]
    ) -> dict[str, Any]:
        require_admin(person, f"{action} schedules")
        found = self._found()
        if name not in found.schedules and name not in found.problems:
            raise ScheduleNotFound(f"there is no schedule {name[:80]!r}")
        with self._audited(person, f"schedule.{action}", name, reason, {}) as connection:
            store.save(connection, name, said, person.id)
        return {"name": name, "paused": said["paused"]}

    def _last(self) -> dict[str, DueTime]:
        with record_errors(), self._app.database.reading() as connection:
            last = store.newest_times(connection)
        if not self._app.settings.inline:
            with broker_errors():
                last |= DueTimes(self._app.valkey, self._app.keys).newest()
        return last

    def _states(self, run_ids: list[str]) -> dict[str, str]:
        with broker_errors():
            live = {run_id: run.state.value for run_id, run in self._app.live.get_many(run_ids).items()}
        missing = [run_id for run_id in run_ids if run_id not in live]
        if not missing:
            return live
        with record_errors(), self._app.database.reading() as connection:
            return store.states(connection, missing) | live

    def _now(self) -> datetime:
        """By the clock that beats go by."""
        if self._app.settings.inline:
            return clock.now()
        with broker_errors():
            return DueTimes(self._app.valkey, self._app.keys).now()

    @contextmanager
    def _audited(self, *args: Any) -> Any:
        with audited(self._app, *args) as connection:
            yield connection


def marks_of_run(app: host.App, run_id: str) -> dict[str, Any]:
    """What the header of a run's message says of the due time that it is for; nothing for any other run."""
    time = _time_of(app, run_id)
    return {} if time is None else {"schedule": time.schedule, "due": time.due.timestamp()}


def of_run(app: host.App, run_id: str) -> dict[str, Any] | None:
    """The schedule and the due time that a run was made for; None for any other run."""
    time = _time_of(app, run_id)
    return None if time is None else {"name": time.schedule, **_told(time)}


def _time_of(app: host.App, run_id: str) -> DueTime | None:
    if run_id[14:15] != "5":  # ids of such runs are of version 5: the others are not looked for
        return None
    try:
        with app.database.reading() as connection:
            return store.time_of_run(connection, run_id)
    except SQLAlchemyError:
        return None  # the run itself was found; what it was for comes later


def _view(
    schedule: Schedule, last: DueTime | None, states: Mapping[str, str], now: datetime, count: int
) -> dict[str, Any]:
    known = last is not None and last.rule == str(schedule.rule)
    upcoming = (
        [] if schedule.paused else schedule.upcoming(now, count, last=last.due if last and known else None)
    )
    return {
        "name": schedule.name,
        "task": schedule.task,
        "args": mask(list(schedule.args)),
        "kwargs": mask(dict(schedule.kwargs)),
        "rule": str(schedule.rule),
        "catch_up": schedule.catch_up,
        "overlap": schedule.overlap,
        "jitter": schedule.jitter,
        "only_if": to_data(schedule.only_if),
        "patience": schedule.patience,
        "paused": schedule.paused,
        "origin": schedule.origin,
        "next": _iso_all(upcoming),
        "last": _told(last) | {"state": states.get(last.run_id or "")}
        if last and last.outcome != "began"
        else None,
    }


def _told(time: DueTime) -> dict[str, Any]:
    return {
        "due": iso(time.due),
        "outcome": time.outcome,
        "at": iso(time.at),
        "late_s": time.late,
        "task_id": time.run_id,
        "reason": time.reason,
    }


def _iso_all(moments: list[datetime]) -> list[str | None]:
    return [iso(moment) for moment in moments]


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: iso(value) if isinstance(value, datetime) else value for key, value in said.items()}
