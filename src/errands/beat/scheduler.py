"""The scheduler that `celery -A app beat` runs: one run per due time, however many beats there are."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import redis
import structlog
from celery import beat

from errands.beat import due
from errands.beat.service import BeatService
from errands.core import clock

_log = structlog.get_logger(__name__)

_LONGEST_SLEEP = 5.0  # seconds; a clock that was set is noticed within this
_LOOK_SECONDS = 1.0


class Scheduler(beat.Scheduler):
    """Sends what `app.conf.beat_schedule` says is due, while its beat leads.

    - Each due time has a run id of its own, made of the schedule's name and the time: twice sent is one run.
    - When each schedule was last due is kept in Valkey, beside the queues: what a crash takes from the one it
      takes from the other, and what was lost is sent again, under the same id.
    - Due times that passed while no beat ran are caught up with by one run, for the last of them.
    - A schedule that is new, or was changed, is first due after the moment at which it was first seen.

    It works in a thread of the beat's service, which it starts: a signal that ends the process is raised in
    the main thread, and would cut a sending off in the middle.
    """

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        self.service: BeatService | None = None
        self._token = 0
        self._last: dict[str, datetime] = {}
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the schedules and start the service. Not called for a lazy scheduler."""
        super().setup_schedule()
        self.service = BeatService(self.app, schedules=self.send_due)
        self.service.start()

    def close(self) -> None:
        """Stop everything."""
        if self.service is not None:
            self.service.stop()
        super().close()

    def tick(self, *_: Any, **__: Any) -> float:
        """Look after the threads. Returns seconds until the next look.

        Raises:
            BeatFailed: one of them has given up; the process ends.
        """
        if self.service is not None:
            self.service.check()
        return _LOOK_SECONDS

    def send_due(self) -> float:
        """Send what is due, if this beat leads. Returns seconds until the next time."""
        token = self.service.leader.token if self.service is not None else 0
        if token == 0:
            self._token = 0
            return _LOOK_SECONDS
        if token != self._token:
            self._last = self._load()
            self._token = token
        sleep = _LONGEST_SLEEP
        for entry in list(self.schedule.values()):
            now = clock.now()
            try:
                when = due.latest_due(entry.schedule, self._last[entry.name], now)
                if when is not None and not self._send(entry, when):
                    continue
                following = due.first_due(entry.schedule, self._last[entry.name])
            except redis.RedisError:
                raise
            except Exception:  # noqa: BLE001 - one bad schedule must not stop the others
                _log.exception("a schedule cannot be worked out", schedule=entry.name)
                continue
            sleep = min(sleep, (following - clock.now()).total_seconds())
        return max(sleep, 0.01)

    def _send(self, entry: Any, when: datetime) -> bool:
        """Send the run of one due time; then note it. False where it has to be tried again."""
        if self.service is None or self.service.leader.token != self._token:
            return False
        named = copy.copy(entry)
        named.options = {**entry.options, "task_id": due.run_id(self.app.main or "", entry.name, when)}
        try:
            self.apply_async(named, advance=False)
        except beat.SchedulingError as exc:
            _log.error(
                "a due run cannot be sent; trying again", schedule=entry.name, due=when, reason=str(exc)
            )
            return False
        late = (clock.now() - when).total_seconds()
        _log.info("sent", schedule=entry.name, task=entry.task, due=when.isoformat(), late_s=round(late, 3))
        self._note(entry, when)
        return True

    def _load(self) -> dict[str, datetime]:
        found: dict[bytes, bytes] = self.app.valkey.hgetall(self.app.keys.schedule_state)
        last = {}
        for entry in self.schedule.values():
            state = json.loads(found.get(entry.name.encode(), b"{}"))
            if state.get("schedule") == repr(entry.schedule):
                last[entry.name] = datetime.fromisoformat(state["last"]).astimezone(UTC)
            else:
                self._note(entry, clock.now(), into=last)
        return last

    def _note(self, entry: Any, when: datetime, into: dict[str, datetime] | None = None) -> None:
        (self._last if into is None else into)[entry.name] = when
        state = json.dumps({"last": when.isoformat(), "schedule": repr(entry.schedule)})
        self.app.valkey.hset(self.app.keys.schedule_state, entry.name, state)

    @property
    def info(self) -> str:
        """One line for the banner of `celery beat`."""
        return "    . state -> Valkey, one leader"
