"""What is due, and what is done about it: the decisions of a beat that leads, wherever it says them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import redis
import structlog

from errands.broker.operations import Verdict
from errands.core.conditions import Load
from errands.core.errors import BrokerUnavailable, ErrandsError
from errands.core.schedule import DueTime, Once, Schedule, due_times, run_id, whole

_log = structlog.get_logger(__name__)

NEVER = datetime.max.replace(tzinfo=UTC)
_AT_ONCE = datetime.min.replace(tzinfo=UTC)
# What is no later than this counts as sent in time: another beat takes over within ten seconds.
_IN_TIME = timedelta(minutes=1)
_AGAIN = timedelta(seconds=5)  # after what could not be sent
_LOOK = timedelta(seconds=2)  # at the load that stands in the way
_AT_A_TIME = 100  # runs that one schedule catches up with before others have their turn
# A new one-time schedule whose time has passed while it was being deployed is sent all the same.
_MISSED_AT_FIRST = timedelta(hours=1)
# A server's clock that was further ahead than this was wrong, and does not hold everything up until then.
_AHEAD = timedelta(days=1)

Answer = tuple[Verdict, str]


class Fenced(ErrandsError):
    """Another beat leads; what is due is its business now."""


class Line(Protocol):
    """Where the sender says what it decided, and learns what was before."""

    def now(self) -> datetime:
        """The time by which things are due: the same for all beats."""

    def newest(self) -> Mapping[str, DueTime]:
        """Of each schedule, the newest due time that was dealt with."""

    def send(self, schedule: Schedule, time: DueTime) -> Answer:
        """Send the run of a due time; or learn that it was sent, or that the run before is open."""

    def note(self, time: DueTime) -> Verdict:
        """Keep what became of a due time that no run was sent for."""

    def tell(self, time: DueTime) -> None:
        """Write down what became of a due time, for people."""


@dataclass(slots=True)
class _Watched:
    schedule: Schedule
    last: datetime  # all due times up to here were dealt with
    run: str | None = None  # the newest
    look_at: datetime = _AT_ONCE
    pending: deque[datetime] = field(default_factory=deque)
    passed: str | None = None  # what is to be said of due times that are not caught up with
    put_off: str | None = None


class Sender:
    """Sends one run per due time, catches up as the schedules say, and holds back as they say.

    Args:
        app_name: of the app: part of the runs' ids.
        line: where it says what it decided.
        load: how busy the system is.
        most: due times that are caught up with at the most, of one schedule.
    """

    def __init__(self, app_name: str, line: Line, load: Load, *, most: int = 1000) -> None:
        self._app_name = app_name
        self.line = line
        self._load = load
        self._most = most
        self._watched: dict[str, _Watched] = {}
        self._newest: dict[str, DueTime] | None = None
        self._now = _AT_ONCE

    def begin(self) -> None:
        """Look anew at what was dealt with: this beat has just come to lead."""
        self._watched.clear()
        self._newest = None

    def step(self, schedules: Mapping[str, Schedule]) -> datetime:
        """Do what is due. Returns when to look next, at the latest.

        Args:
            schedules: all there are, by name.

        Raises:
            Fenced: another beat leads.
            BrokerUnavailable, redis.RedisError: the broker is away; nothing is lost by trying again.
        """
        now = self.line.now()
        set_back, self._now = now < self._now, now
        self._follow(schedules, now)
        for watched in list(self._watched.values()):
            if set_back:
                watched = self._again(watched, now)
            if watched.look_at > now:
                continue
            try:
                self._turn(watched, now)
            except (Fenced, redis.RedisError, BrokerUnavailable):
                raise
            except Exception as exc:  # noqa: BLE001 - one bad schedule must not stop the others
                _log.error(
                    "a due run cannot be sent; trying again", schedule=watched.schedule.name, reason=str(exc),
                    exc_info=not isinstance(exc, ErrandsError),
                )  # fmt: skip
                watched.pending.clear()
                watched.look_at = now + _AGAIN
        return min((watched.look_at for watched in self._watched.values()), default=NEVER)

    # -- which schedules there are

    def _follow(self, schedules: Mapping[str, Schedule], now: datetime) -> None:
        if self._newest is None:
            self._newest = dict(self.line.newest())
            for time in self._newest.values():
                if time.outcome in ("sent", "skipped"):
                    self.line.tell(time)  # whoever led before may have died before it could
        for name in [name for name in self._newest if name not in schedules]:
            self._ended(self._newest.pop(name), now)
        for name, schedule in schedules.items():
            watched = self._watched.get(name)
            if watched is not None and watched.schedule is schedule:
                continue
            if watched is None or str(watched.schedule.rule) != str(schedule.rule):
                watched = self._begun(schedule, watched, now)
            else:
                watched = _Watched(schedule, watched.last, watched.run)
            if schedule.resumed_at is not None and watched.last < schedule.resumed_at <= now:
                watched.last = schedule.resumed_at
            self._watched[name] = watched

    def _begun(self, schedule: Schedule, before: _Watched | None, now: datetime) -> _Watched:
        """One that is new, or new to this beat, or due by another rule than before."""
        assert self._newest is not None  # noqa: S101 - looked up by `_follow`
        known = self._newest.get(schedule.name)
        run = before.run if before else known.run_id if known else None
        if (
            known is not None
            and before is None
            and known.outcome != "ended"
            and known.rule == str(schedule.rule)
        ):
            if known.due <= now + _AHEAD:
                return _Watched(schedule, known.due, run)
            _log.warning("the clock was set back; a schedule goes on from now", schedule=schedule.name)
        earliest = now - _MISSED_AT_FIRST
        since = earliest if isinstance(schedule.rule, Once) else now
        if schedule.since is not None:
            since = min(max(schedule.since, earliest), now)
        time = DueTime(schedule.name, whole(since), str(schedule.rule), "began", now, run_id=run)
        self._heard(self.line.note(time))
        self._newest = {**self._newest, schedule.name: time}
        return _Watched(schedule, time.due, run)

    def _again(self, watched: _Watched, now: datetime) -> _Watched:
        """The clock was set back: what was to wait for some seconds must not wait for an hour."""
        schedule = watched.schedule
        if watched.last > now + _AHEAD:
            assert self._newest is not None  # noqa: S101
            self._newest.pop(schedule.name, None)
            watched = self._watched[schedule.name] = self._begun(schedule, watched, now)
        watched.look_at = now
        return watched

    def _ended(self, known: DueTime, now: datetime) -> None:
        """One that is gone: should it come back, it begins anew."""
        self._watched.pop(known.schedule, None)
        if known.outcome != "ended":
            time = replace(known, due=whole(now), outcome="ended", at=now, late=0.0, reason=None)
            self._heard(self.line.note(time))
            self.line.tell(time)

    # -- what is due of one of them

    def _turn(self, watched: _Watched, now: datetime) -> None:
        schedule = watched.schedule
        if schedule.paused:
            watched.look_at = NEVER
            return
        if not watched.pending:
            self._gather(watched, now)
        for _ in range(_AT_A_TIME):
            if not watched.pending:
                break
            due = watched.pending[0]
            at = schedule.sends_at(due)
            if at > now:
                watched.look_at = at
                return
            if not self._deal_with(watched, due, at, now):
                return
            watched.pending.popleft()
        watched.look_at = now if watched.pending else self._next(watched)

    def _next(self, watched: _Watched) -> datetime:
        following = watched.schedule.rule.next(watched.last)
        return NEVER if following is None else following

    def _gather(self, watched: _Watched, now: datetime) -> None:
        """What is to be sent of what has become due."""
        schedule = watched.schedule
        found = due_times(schedule.rule, watched.last, now, self._most + 1)
        if not found:
            return
        chosen = {"all": found[-self._most :], "one": found[-1:]}.get(schedule.catch_up)
        if chosen is None:
            chosen = [due for due in found[-1:] if now - schedule.sends_at(due) <= _IN_TIME]
        left_out = found[: len(found) - len(chosen)]
        if left_out:
            more = "more than " if len(found) > self._most else ""
            passed = (
                f"{more}{len(left_out)} due times before passed unsent, the newest at "
                f"{left_out[-1].isoformat()} (catch_up={schedule.catch_up!r})"
            )
            _log.warning("due times passed unsent", schedule=schedule.name, count=len(left_out), why=passed)
            watched.passed = passed
            if not chosen:
                self._skip(watched, left_out[-1], passed, now)
        watched.pending.extend(chosen)

    def _deal_with(self, watched: _Watched, due: datetime, at: datetime, now: datetime) -> bool:
        """Send a due time's run, or skip it. False: not yet."""
        schedule = watched.schedule
        unmet = next((why for each in schedule.only_if if (why := each.unmet(self._load))), None)
        if unmet is not None:
            until = (
                schedule.rule.next(due)
                if schedule.patience is None
                else at + timedelta(seconds=schedule.patience)
            )
            if until is None or now < until:
                if watched.put_off is None:
                    _log.info("put off", schedule=schedule.name, due=due.isoformat(), why=unmet)
                watched.put_off = unmet
                watched.look_at = now + _LOOK if until is None else min(now + _LOOK, until)
                return False
            self._skip(watched, due, f"put off too long: {unmet}", now)
            return True
        late = max(0.0, round((now - at).total_seconds(), 3))
        ours = run_id(self._app_name, schedule.name, due)
        told = [text for text in (watched.passed, watched.put_off and f"put off: {watched.put_off}") if text]
        time = DueTime(
            schedule.name, due, str(schedule.rule), "sent", now, late=late, run_id=ours,
            reason="; ".join(told) or None,
        )  # fmt: skip
        verdict, about = self.line.send(schedule, time)
        self._heard(verdict)
        if verdict is Verdict.OVERLAP:
            self._skip(watched, due, f"the run {about} is still open (overlap='skip')", now)
            return True
        watched.last, watched.run = due, about or ours
        _log.info(
            "sent" if verdict is Verdict.OK else f"not sent again: {verdict}", schedule=schedule.name,
            task=schedule.task, run=watched.run, due=due.isoformat(), late_s=late,
        )  # fmt: skip
        self.line.tell(replace(time, run_id=watched.run))
        watched.passed = watched.put_off = None
        return True

    def _skip(self, watched: _Watched, due: datetime, why: str, now: datetime) -> None:
        schedule = watched.schedule
        late = max(0.0, round((now - schedule.sends_at(due)).total_seconds(), 3))
        time = DueTime(
            schedule.name, due, str(schedule.rule), "skipped", now, late=late, run_id=watched.run, reason=why
        )
        self._heard(self.line.note(time))
        _log.warning("skipped", schedule=schedule.name, due=due.isoformat(), why=why)
        self.line.tell(time)
        watched.last = due
        watched.passed = watched.put_off = None

    @staticmethod
    def _heard(verdict: Verdict) -> None:
        if verdict is Verdict.FENCED:
            raise Fenced("another beat leads")
