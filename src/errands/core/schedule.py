"""Schedules: what is due when, and what is to be done about it. The same answer in every process."""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from errands.core.conditions import Condition, QueueBelow
from errands.core.cron import Cron
from errands.core.errors import ConfigurationError, InvalidArguments
from errands.core.options import checked

CATCH_UP = ("skip", "one", "all")
OVERLAP = ("queue", "skip")
_LONGEST_NAME = 200
_SHORTEST_MS = 100
_LONGEST_MS = 366 * 10 * 24 * 3600 * 1000
_MS = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMESPACE = uuid.UUID("5f0c7f4e-6f0a-5c8e-9a53-3f1d1c1f7a10")


class Rule(Protocol):
    """Says when something is due. Its text is the same for the same rule, and no other."""

    def __str__(self) -> str: ...

    def next(self, after: datetime) -> datetime | None:
        """The first due time later than `after`, in UTC and in whole milliseconds; None: there is none."""

    def near(self, after: datetime, moment: datetime) -> datetime:
        """A time up to `moment` from which `next` goes on as it does from `after`."""


@dataclass(frozen=True, slots=True)
class Every:
    """At each multiple of an interval since 1970-01-01 00:00 UTC: an hour is at each full hour.

    So every process knows the times, also one that has lost all that was before.

    Args:
        interval: seconds, or a timedelta; a tenth of a second to ten years, in whole milliseconds.

    Raises:
        ConfigurationError: it is shorter, longer or no interval at all.
    """

    interval: timedelta | float

    def __post_init__(self) -> None:
        given = self.interval
        if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < _LONGEST_MS:
            given = timedelta(seconds=given)
        if not isinstance(given, timedelta) or not _SHORTEST_MS <= round(given / _MS) <= _LONGEST_MS:
            raise ConfigurationError(
                f"every={self.interval!r}: write seconds or a timedelta, a tenth of a second to ten years"
            )
        object.__setattr__(self, "interval", round(given / _MS) * _MS)

    def __str__(self) -> str:
        return f"every {self.seconds:g} s"

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        assert isinstance(self.interval, timedelta)  # noqa: S101 - made so above
        return self.interval.total_seconds()

    @property
    def shortest_gap(self) -> float:
        """Seconds between two of its times."""
        return self.seconds

    def next(self, after: datetime) -> datetime:
        """As `Rule.next`."""
        return _EPOCH + ((after - _EPOCH) // self.interval + 1) * self.interval  # type: ignore[operator]

    def near(self, after: datetime, moment: datetime) -> datetime:
        """As `Rule.near`."""
        return moment


@dataclass(frozen=True, slots=True)
class Once:
    """At one moment.

    Args:
        at: with a time zone.

    Raises:
        ConfigurationError: it has none.
    """

    at: datetime

    def __post_init__(self) -> None:
        if not isinstance(self.at, datetime) or self.at.tzinfo is None:
            raise ConfigurationError(f"at={self.at!r}: write a datetime with a time zone")
        object.__setattr__(self, "at", whole(self.at))

    def __str__(self) -> str:
        return f"once {self.at.isoformat()}"

    def next(self, after: datetime) -> datetime | None:
        """As `Rule.next`."""
        return self.at if self.at > after else None

    def near(self, after: datetime, moment: datetime) -> datetime:
        """As `Rule.near`."""
        return moment


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run of a task for each due time.

    Args:
        name: unique within the app; the ids of its runs are made of it.
        task: the task's name.
        rule: when it is due.
        args, kwargs: of the task.
        options: of `apply_async`: `queue`, `priority`, `expires`, …
        catch_up: what becomes of due times that passed while no beat ran: "one" run for the newest of them,
            "all" of them, or "skip": none that is later than a minute.
        overlap: what becomes of a due time at which the run before is still open: "queue" sends it all the
            same, "skip" leaves it out.
        jitter: up to so many seconds later than due; the same for a due time in every process.
        only_if: what must be so at the time; until it is, the run is put off.
        patience: seconds that it is put off at the most; by default until the next due time.
        paused: nothing is sent.
        since: due times after this one count, where nothing is known of what was sent before.
        resumed_at: when somebody last ended a pause; what was due in it is not caught up with.
        origin: "code", "row", or "code, changed by a row".

    Raises:
        ConfigurationError: it names the schedule and says what is wrong.
    """

    name: str
    task: str
    rule: Rule
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    catch_up: str = "one"
    overlap: str = "queue"
    jitter: float = 0.0
    only_if: tuple[Condition, ...] = ()
    patience: float | None = None
    paused: bool = False
    since: datetime | None = None
    resumed_at: datetime | None = None
    origin: str = "code"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("catch_up", self.catch_up, CATCH_UP),
            ("overlap", self.overlap, OVERLAP),
        ):
            if value not in known:
                self._refuse(f"{option}={value!r}: use {', '.join(map(repr, known))}")
        if not isinstance(self.jitter, int | float) or not 0 <= self.jitter <= 24 * 3600:
            self._refuse(f"jitter={self.jitter!r}: write seconds, up to a day")
        gap = self.rule.shortest_gap if isinstance(self.rule, Every | Cron) else None
        if gap is not None and self.jitter and self.jitter >= gap:
            self._refuse(f"jitter={self.jitter:g} is not shorter than the {gap:g} s between its times")
        if self.patience is not None and not (isinstance(self.patience, int | float) and self.patience > 0):
            self._refuse(f"patience={self.patience!r}: write seconds, more than 0")
        if self.patience is not None and not self.only_if:
            self._refuse("patience makes sense with only_if: nothing else puts a run off")

    def _refuse(self, why: str) -> None:
        raise ConfigurationError(f"schedule {self.name!r}: {why}")

    def sends_at(self, due: datetime) -> datetime:
        """When the run of a due time is sent: then, or later by its share of the jitter."""
        if not self.jitter:
            return due
        digest = hashlib.sha256(f"{self.name}/{due.timestamp():.3f}".encode()).digest()
        share = int.from_bytes(digest[:6]) / 2**48
        return due + int(share * self.jitter * 1000) * _MS

    def upcoming(self, after: datetime, count: int = 5, *, last: datetime | None = None) -> list[datetime]:
        """The next due times after `after`, without jitter.

        Args:
            last: the last one that is known, for rules that count from it.
        """
        start = after
        if last is not None and last < after:
            missed = due_times(self.rule, last, after, 1)
            start = missed[-1] if missed else last
        found: list[datetime] = []
        while len(found) < count and (due := self.rule.next(start)) is not None:
            found.append(due)
            start = due
        return found


@dataclass(frozen=True, slots=True)
class DueTime:
    """A due time that was dealt with.

    Args:
        schedule: its name.
        due: when it was due.
        rule: the schedule's, as text.
        outcome: "sent", "skipped", or "began": the schedule is new or changed, and what is due after counts.
        at: when it was dealt with.
        late: seconds later than it should have been sent, the jitter not counted.
        run_id: the newest run of the schedule: this due time's own where it was sent.
        reason: why it was skipped; what else there is to say.
    """

    schedule: str
    due: datetime
    rule: str
    outcome: str
    at: datetime
    late: float = 0.0
    run_id: str | None = None
    reason: str | None = None


def check_names(schedule: Schedule, tasks: Collection[str], queues: Collection[str]) -> None:
    """Refuse a schedule whose task or queue nobody knows, or whose calls nobody could send.

    Raises:
        ConfigurationError: it names the schedule and what is wrong.
    """
    if schedule.task not in tasks:
        raise ConfigurationError(
            f"schedule {schedule.name!r} names the task {schedule.task!r}, which is not registered: "
            "import the module that declares it, or correct the name"
        )
    try:
        checked(schedule.task, dict(schedule.options))
    except InvalidArguments as exc:
        raise ConfigurationError(f"schedule {schedule.name!r}: {'; '.join(exc.problems)}") from exc
    named = [("waits in", schedule.options.get("queue"))]
    named += [("looks at", each.queue) for each in schedule.only_if if isinstance(each, QueueBelow)]
    for what, queue in named:
        if isinstance(queue, str) and queue not in queues:
            raise ConfigurationError(
                f"schedule {schedule.name!r} {what} the queue {queue!r}, which the app does not have: it has "
                f"{', '.join(queues)}"
            )


def checked_name(name: Any) -> str:
    """`name`, if a schedule can have it.

    Raises:
        ConfigurationError: it cannot.
    """
    good = isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable() and "/" not in name
    if not good or name != name.strip():
        raise ConfigurationError(
            f"schedule {str(name)[:80]!r}: a name has up to {_LONGEST_NAME} letters, no slash, and no space "
            "around it"
        )
    return str(name)


def rule_of(
    name: str, *, cron: str | None = None, every: timedelta | float | None = None, at: datetime | None = None,
    tz: str | None = None,
) -> Rule:  # fmt: skip
    """The rule that was said, in one way of three.

    Raises:
        ConfigurationError: it names the schedule and says what is wrong.
    """
    given = [word for word, value in (("cron", cron), ("every", every), ("at", at)) if value is not None]
    if len(given) != 1:
        raise ConfigurationError(
            f"schedule {name!r}: say when it is due, with one of cron=, every= and at="
            + (f", not with {' and '.join(given)}" if given else "")
        )
    try:
        if cron is not None:
            return Cron(cron, "UTC" if tz is None else tz)
        if tz is not None:
            raise ConfigurationError(f"tz={tz!r} belongs to a cron line; {given[0]}= knows of no zones")
        return Every(every) if every is not None else Once(at)  # type: ignore[arg-type]
    except ConfigurationError as exc:
        raise ConfigurationError(f"schedule {name!r}: {exc}") from exc


def due_times(rule: Rule, after: datetime, until: datetime, most: int) -> list[datetime]:
    """The newest due times in (`after`, `until`], at most `most` of them, in order."""
    # From close by to far away, so that months of a beat's absence are not walked through one by one.
    back = timedelta(minutes=2)
    while True:
        start = max(after, until - back)
        found = deque(_between(rule, rule.near(after, start), until), maxlen=most)
        if start <= after or len(found) == most:
            return list(found)
        back *= 2


def _between(rule: Rule, after: datetime, until: datetime) -> Iterable[datetime]:
    due = rule.next(after)
    while due is not None and due <= until:
        yield due
        following = rule.next(due)
        if following is not None and following <= due:  # a rule that gets nowhere
            return
        due = following


def whole(moment: datetime) -> datetime:
    """In UTC, and in whole milliseconds: a due time's name must not depend on how it was worked out."""
    return _EPOCH + ((moment - _EPOCH) // _MS) * _MS


def run_id(app_name: str, schedule_name: str, due: datetime) -> str:
    """The id of the run for one due time: made of nothing else, so that it is made once, whoever sends it.

    A UUID of version 5 (RFC 9562) over the app's name, the schedule's and the time in UTC.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{app_name}/{schedule_name}/{due.astimezone(UTC).isoformat()}"))
