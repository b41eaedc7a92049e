"""Schedules as the code says them; and the runs of due times, which only the beat that leads may send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import redis
from celery.canvas import Signature

from errands.beat.due import celery_entries, declared, read_scheduled
from errands.broker.operations import Verdict
from errands.broker.schedules import Asked, only_if_due
from errands.core.conditions import Condition, from_data
from errands.core.errors import ConfigurationError
from errands.core.schedule import Schedule, checked_name, rule_of
from errands.sending import refusals
from errands.sending.calls import Call, tell_after
from errands.sending.many import ManyCalls
from errands.task import Task


class ScheduledCalls(ManyCalls):
    """An app that has schedules, and sends their runs."""

    @cached_property
    def _schedules(self) -> dict[str, Schedule]:
        return {}

    def schedule(
        self,
        name: str,
        call: Signature | Task[..., Any] | str,
        *,
        cron: str | None = None,
        every: timedelta | float | None = None,
        at: datetime | None = None,
        tz: str | None = None,
        catch_up: Literal["skip", "one", "all"] = "one",
        overlap: Literal["queue", "skip"] = "queue",
        jitter: float = 0,
        only_if: Condition | Sequence[Condition] = (),
        patience: float | None = None,
    ) -> None:
        """Let a beat send one run for each due time: see `docs/schedules.md`.

        Args:
            name: unique within the app; the ids of its runs are made of it.
            call: a task, a task's name, or a signature (`task.s(days=1)`) with arguments and options.
            cron: five fields: minute, hour, day of month, month, day of week.
            every: seconds or a timedelta: at each multiple of it since 1970-01-01 UTC.
            at: one moment, with a time zone.
            tz: of the cron line, like `Europe/Berlin`; by default `app.conf.timezone`, which is UTC.
            catch_up: what becomes of due times that passed while no beat ran: `"one"` run for the newest of
                them, `"all"` of them (at most `ERRANDS_SCHEDULE_CATCH_UP_MAX`), or `"skip"`: none that is
                later than a minute.
            overlap: `"skip"` leaves a due time out while the run before is open; `"queue"` does not look.
            jitter: seconds by which a run may be later than due, so that not all come at once.
            only_if: `QueueBelow(queue, count)`, `CpuBelow(percent)`, or several of them: until all of it is
                so, the run is put off.
            patience: seconds that it is put off at the most; by default until the next due time.

        Raises:
            ConfigurationError: it names the schedule and what is wrong. Whether the task is registered, and
                takes these arguments, is checked when the app starts.
        """
        name = checked_name(name)
        if name in self._schedules:
            raise ConfigurationError(f"schedule {name!r} is declared twice: give one of them another name")
        if cron is not None and tz is None:
            tz = str(self.conf.timezone or "UTC")
        try:
            conditions = from_data(only_if)
        except ConfigurationError as exc:
            raise ConfigurationError(f"schedule {name!r}: {exc}") from exc
        task, args, kwargs, options = read_scheduled(call)
        self._schedules[name] = Schedule(
            name=name, task=task, args=args, kwargs=kwargs, options=options,
            rule=rule_of(name, cron=cron, every=every, at=at, tz=tz), catch_up=catch_up, overlap=overlap,
            jitter=jitter, only_if=conditions, patience=patience,
        )  # fmt: skip

    @property
    def declared_schedules(self) -> dict[str, Schedule]:
        """What the code says of schedules, by name: by `schedule`, and in Celery's `beat_schedule`.

        Raises:
            ConfigurationError: a name is used twice; or an entry says nothing that can be a schedule.
        """
        entries = celery_entries(self)
        for name in self._schedules.keys() & entries.keys():
            raise ConfigurationError(
                f"schedule {name!r} is declared twice: by app.schedule and in beat_schedule"
            )
        return {**self._schedules, **declared(entries, self)}

    def send_due(
        self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], run_id: str, options: dict[str, Any],
        asked: Asked,
    ) -> tuple[Verdict, str] | None:  # fmt: skip
        """Send the run of a due time, if it is the leader that asks and the time was not dealt with before.

        The message, the event that tells of it and the note of the due time are written in one step, or none.

        Args:
            task, args, kwargs, run_id, options: as `apply_async` takes them.
            asked: see `errands.broker.schedules.ask_for`.

        Returns:
            The verdict, and what more there is to it: the run that is there already, or open. None where it
            is Celery that has to send it (another broker, say): nothing was done.

        Raises:
            InvalidArguments, PayloadTooLarge, SecretError: the arguments do not fit.
            BrokerUnavailable: the broker did not take the message.
        """
        if not isinstance(task, Task) or task.function is None:
            return None
        call = self._ready(self.context(), task, args, kwargs, run_id, None, options)
        if not isinstance(call, Call):
            return None
        try:
            (reply,) = self._live_runs.commit([only_if_due(call.operation, asked)])
        except redis.RedisError as exc:
            raise refusals.of_broker(exc, [call], 0, self.settings.broker_url) from exc
        if reply.verdict is Verdict.OK:
            tell_after(call)
        return reply.verdict, reply.about

    def queue_depth(self, name: str) -> int:
        """Messages that wait in a queue and may start at once. 0 in inline mode.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        from errands.ops.queues import depths  # with SQLAlchemy: for processes that use a database

        found = depths(self).get(name)
        return found.depth if found is not None else 0
