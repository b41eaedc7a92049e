"""What a beat that leads does about due times: catching up, overlap, load, clocks that jump."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from errands import CpuBelow, QueueBelow
from errands.beat.rehearsal import FakeLoad
from errands.beat.sender import NEVER, Answer, Fenced, Sender
from errands.broker.operations import Verdict
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.errors import BrokerUnavailable
from errands.core.schedule import DueTime, Schedule, rule_of, run_id

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


class Broker:
    """What all beats share: what was dealt with, who leads, and which runs are open."""

    def __init__(self) -> None:
        self.newest: dict[str, DueTime] = {}
        self.sent: list[tuple[str, datetime]] = []
        self.ids: list[str] = []
        self.told: list[DueTime] = []
        self.open: set[str] = set()
        self.leader = "a"
        self.broken: Exception | None = None

    def outcomes(self) -> list[tuple[str, str]]:
        return [(f"{time.due:%H:%M}", time.outcome) for time in self.told]


class Line:
    """One beat's line to the broker, which does as lua/schedule.lua does."""

    def __init__(self, broker: Broker, name: str = "a") -> None:
        self.broker, self.name = broker, name
        self.now = clock.now

    def newest(self) -> dict[str, DueTime]:
        return dict(self.broker.newest)

    def send(self, schedule: Schedule, time: DueTime) -> Answer:
        if self.broker.broken is not None:
            raise self.broker.broken
        if self.name != self.broker.leader:
            return Verdict.FENCED, ""
        known = self.broker.newest.get(schedule.name)
        if known is not None and known.due >= time.due:
            return Verdict.KNOWN, known.run_id or ""
        if schedule.overlap == "skip" and known is not None and known.run_id in self.broker.open:
            return Verdict.OVERLAP, str(known.run_id)
        self.broker.newest[schedule.name] = time
        self.broker.sent.append((schedule.name, time.due))
        self.broker.ids.append(str(time.run_id))
        return Verdict.OK, ""

    def note(self, time: DueTime) -> Verdict:
        if self.name != self.broker.leader:
            return Verdict.FENCED
        self.broker.newest[time.schedule] = time
        return Verdict.OK

    def tell(self, time: DueTime) -> None:
        if time not in self.broker.told:
            self.broker.told.append(time)


@pytest.fixture
def now() -> Iterator[FakeClock]:
    with clock.use(FakeClock(START)) as fake:
        assert isinstance(fake, FakeClock)
        yield fake


@pytest.fixture
def broker() -> Broker:
    return Broker()


def schedule(name: str = "tidy", **said: Any) -> Schedule:
    when = {key: said.pop(key) for key in ("cron", "every", "at", "tz") if key in said}
    rule = rule_of(name, **(when or {"cron": "0 * * * *"}))
    return Schedule(name=name, task="tidy", rule=rule, **said)


def sender(broker: Broker, name: str = "a", load: FakeLoad | None = None, **options: Any) -> Sender:
    return Sender("school", Line(broker, name), load or FakeLoad(), **options)


def hours(broker: Broker) -> list[str]:
    return [f"{due:%H:%M}" for _, due in broker.sent]


def test_one_run_per_due_time_each_when_it_is_due(broker: Broker, now: FakeClock) -> None:
    one, each = sender(broker), {"tidy": schedule()}
    assert one.step(each) == START + HOUR
    assert broker.sent == []
    now.advance(HOUR - SECOND)
    one.step(each)
    assert broker.sent == []
    now.advance(SECOND)
    assert one.step(each) == START + 2 * HOUR
    one.step(each)
    assert hours(broker) == ["13:00"]
    assert broker.ids == [run_id("school", "tidy", START + HOUR)]
    assert [(time.outcome, time.late, time.reason) for time in broker.told] == [("sent", 0.0, None)]


@pytest.mark.parametrize(
    ("catch_up", "away", "hours_sent", "told"),
    [
        ("one", 4 * HOUR + 20 * MINUTE, ["16:00"], [("16:00", "sent")]),
        ("skip", 4 * HOUR + 20 * MINUTE, [], [("16:00", "skipped")]),
        ("skip", 4 * HOUR + 30 * SECOND, ["16:00"], [("16:00", "sent")]),
        ("all", 4 * HOUR, ["13:00", "14:00", "15:00", "16:00"], None),
    ],
)
def test_after_an_absence_it_catches_up_as_the_schedule_says(
    broker: Broker, now: FakeClock, catch_up: str, away: timedelta, hours_sent: list[str], told: Any
) -> None:
    each = {"tidy": schedule(catch_up=catch_up)}
    sender(broker).step(each)
    now.advance(away)
    second = sender(broker)  # another beat: it knows what the broker knows
    second.step(each)
    assert hours(broker) == hours_sent
    assert broker.outcomes() == (told or [(hour, "sent") for hour in hours_sent])
    second.step(each)
    now.advance(5 * HOUR - away)
    second.step(each)
    assert hours(broker)[len(hours_sent) :] == ["17:00"]


def test_what_is_late_is_told(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule()}
    sender(broker).step(each)
    now.advance(4 * HOUR + 20 * MINUTE)
    sender(broker).step(each)
    (time,) = broker.told
    assert time.late == 1200
    assert "3 due times before passed unsent, the newest at 2026-03-01T15:00" in str(time.reason)


def test_all_is_bounded_and_says_what_was_dropped(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule(cron="* * * * *", catch_up="all"), "other": schedule("other", every=60)}
    sender(broker).step(each)
    now.advance(timedelta(days=400))
    late = sender(broker, most=250)
    turns = 0
    while len([name for name, _ in broker.sent if name == "tidy"]) < 250:
        late.step(each)
        turns += 1
        assert ("other", clock.now()) in broker.sent  # it does not wait for all of them
    assert turns == 3
    times = [due for name, due in broker.sent if name == "tidy"]
    assert times == [clock.now() - n * MINUTE for n in range(249, -1, -1)]
    assert "more than 1 due times before" in str(next(t for t in broker.told if t.schedule == "tidy").reason)


def test_jitter_is_the_same_for_everyone_and_never_early(broker: Broker, now: FakeClock) -> None:
    one = schedule(jitter=600)
    waits = [(one.sends_at(START + n * HOUR) - (START + n * HOUR)).total_seconds() for n in range(200)]
    assert waits == [
        (schedule(jitter=600).sends_at(START + n * HOUR) - (START + n * HOUR)).total_seconds()
        for n in range(200)
    ]
    assert min(waits) >= 0
    assert max(waits) < 600
    assert max(waits) - min(waits) > 500  # it spreads them
    each = {"tidy": one}
    works = sender(broker)
    works.step(each)
    now.advance(HOUR)
    at = works.step(each)
    assert at == one.sends_at(START + HOUR)
    assert broker.sent == []
    now.advance((at - clock.now()).total_seconds())
    works.step(each)
    assert hours(broker) == ["13:00"]
    assert broker.told[0].late == 0  # the jitter is no lateness


def test_a_run_that_is_still_open_stands_in_the_way(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule(overlap="skip"), "other": schedule("other")}
    works = sender(broker)
    works.step(each)
    now.advance(HOUR)
    works.step(each)
    first = str(broker.newest["tidy"].run_id)
    broker.open = {first, str(broker.newest["other"].run_id)}
    for _ in range(2):
        now.advance(HOUR)
        works.step(each)
    assert [name for name, _ in broker.sent].count("tidy") == 1
    assert [name for name, _ in broker.sent].count("other") == 3
    skipped = [time for time in broker.told if time.outcome == "skipped"]
    assert [f"{time.due:%H}" for time in skipped] == ["14", "15"]
    assert all(first in str(time.reason) for time in skipped)
    broker.open.clear()
    now.advance(HOUR)
    works.step(each)
    assert [f"{due:%H}" for name, due in broker.sent if name == "tidy"] == ["13", "16"]


def test_while_the_load_is_too_high_it_is_put_off(broker: Broker, now: FakeClock) -> None:
    load = FakeLoad(queues={"reports": 100}, percent=95)
    each = {"tidy": schedule(only_if=(QueueBelow("reports", 100), CpuBelow(80)))}
    works = sender(broker, load=load)
    works.step(each)
    now.advance(HOUR)
    assert works.step(each) == clock.now() + 2 * SECOND
    load.queues["reports"] = 99
    now.advance(2)
    works.step(each)
    assert broker.sent == []  # the processors are still busy
    load.percent = 79
    now.advance(2)
    works.step(each)
    assert hours(broker) == ["13:00"]
    assert "put off: the processors are busy" in str(broker.told[0].reason)
    assert broker.told[0].late == 4


@pytest.mark.parametrize(("patience", "skipped_at"), [(None, "14:00"), (600.0, "13:10")])
def test_it_is_put_off_for_so_long_and_no_longer(
    broker: Broker, now: FakeClock, patience: float | None, skipped_at: str
) -> None:
    load = FakeLoad(percent=100)
    each = {"tidy": schedule(only_if=(CpuBelow(50),), patience=patience)}
    works = sender(broker, load=load)
    works.step(each)
    now.advance(HOUR)
    while not broker.told:
        look_at = works.step(each)
        now.advance((look_at - clock.now()).total_seconds() if not broker.told else 0)
    (time,) = broker.told
    assert (f"{time.due:%H:%M}", time.outcome, f"{time.at:%H:%M}") == ("13:00", "skipped", skipped_at)
    assert "put off too long" in str(time.reason)
    load.percent = 0
    now.advance(HOUR)
    works.step(each)
    assert hours(broker) == ["14:00" if patience else "15:00"]


def test_a_leader_that_stood_still_sends_nothing_when_it_wakes(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule()}
    stopped = sender(broker, "a")
    stopped.step(each)
    broker.leader = "b"
    now.advance(HOUR)
    sender(broker, "b").step(each)
    with pytest.raises(Fenced):
        stopped.step(each)
    assert hours(broker) == ["13:00"]


def test_two_who_both_believe_to_lead_make_one_run(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule()}
    both = [sender(broker), sender(broker)]
    for _ in range(5):
        for one in both:
            one.step(each)
        now.advance(HOUR)
    assert hours(broker) == ["13:00", "14:00", "15:00", "16:00"]
    assert len(set(broker.ids)) == 4


@pytest.mark.parametrize("catch_up", ["one", "all"])
def test_a_clock_that_jumps_an_hour_loses_nothing_and_doubles_nothing(
    broker: Broker, now: FakeClock, catch_up: str
) -> None:
    each = {"tidy": schedule(cron="*/20 * * * *", catch_up=catch_up)}
    works = sender(broker)
    works.step(each)
    for jump in (timedelta(minutes=20), HOUR, 20 * MINUTE, -HOUR, *[5 * MINUTE] * 20):
        now.advance(jump)
        works.step(each)
    due = [moment for _, moment in broker.sent]
    assert len(due) == len(set(due))
    assert due == sorted(due)
    every = [START + n * 20 * MINUTE for n in range(1, 8)]
    # Forward, "one" takes the hour's times together; "all" has each. Back, what was sent is not sent again.
    assert due == (every if catch_up == "all" else [every[0], *every[3:]])


def test_a_clock_that_was_years_ahead_does_not_hold_everything_up(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule()}
    works = sender(broker)
    works.step(each)
    now.advance(timedelta(days=3650))
    works.step(each)
    now.advance(-timedelta(days=3650))
    works.step(each)
    now.advance(HOUR)
    works.step(each)
    assert broker.sent[-1][1] == START + HOUR
    for beat in (works, sender(broker)):
        now.advance(HOUR)
        beat.step(each)
    assert [due for _, due in broker.sent][1:] == [START + n * HOUR for n in (1, 2, 3)]


def test_a_pause_is_not_caught_up_with(broker: Broker, now: FakeClock) -> None:
    works = sender(broker)
    works.step({"tidy": schedule(catch_up="all")})
    paused = {"tidy": schedule(catch_up="all", paused=True)}
    works.step(paused)
    now.advance(3 * HOUR + 30 * MINUTE)
    assert works.step(paused) == NEVER
    works.step({"tidy": schedule(catch_up="all", resumed_at=clock.now())})
    assert broker.sent == []
    now.advance(30 * MINUTE)
    works.step({"tidy": schedule(catch_up="all", resumed_at=clock.now() - 30 * MINUTE)})
    assert hours(broker) == ["16:00"]


def test_a_changed_rule_counts_from_now_and_other_changes_change_nothing(
    broker: Broker, now: FakeClock
) -> None:
    works = sender(broker)
    works.step({"tidy": schedule()})
    now.advance(30 * MINUTE)
    works.step({"tidy": schedule(cron="*/10 * * * *")})
    assert broker.sent == []
    now.advance(10 * MINUTE)
    works.step({"tidy": schedule(cron="*/10 * * * *", kwargs={"days": 2})})
    assert hours(broker) == ["12:40"]


def test_one_that_is_deleted_and_comes_back_begins_anew(broker: Broker, now: FakeClock) -> None:
    works = sender(broker)
    works.step({"tidy": schedule()})
    now.advance(HOUR)
    works.step({"tidy": schedule()})
    works.step({})
    assert broker.newest["tidy"].outcome == "ended"
    now.advance(timedelta(days=30))
    works.step({"tidy": schedule()})
    sender(broker).step({"tidy": schedule()})
    assert hours(broker) == ["13:00"]


def test_once_is_once(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule(at=START + MINUTE)}
    works = sender(broker)
    works.step(each)
    now.advance(MINUTE)
    assert works.step(each) == NEVER
    sender(broker).step(each)
    assert hours(broker) == ["12:01"]


@pytest.mark.parametrize(("ago", "sent"), [(30 * MINUTE, 1), (2 * HOUR, 0)])
def test_a_new_one_time_schedule_that_nobody_saw_in_time(
    broker: Broker, now: FakeClock, ago: timedelta, sent: int
) -> None:
    """It may have passed while it was being deployed; but a time of last year is not made up for."""
    sender(broker).step({"tidy": schedule(at=START - ago)})
    assert len(broker.sent) == sent


def test_a_row_counts_from_when_it_was_written(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule(every=10, since=START - 5 * SECOND)}
    now.advance(1)
    works = sender(broker)
    works.step(each)
    works.step(each)
    assert [due for _, due in broker.sent] == [START]


def test_one_that_cannot_be_sent_holds_up_nobody_and_is_tried_again(broker: Broker, now: FakeClock) -> None:
    each = {"tidy": schedule()}
    works = sender(broker)
    works.step(each)
    now.advance(HOUR)
    broker.broken = ValueError("wrong arguments")
    assert works.step(each) == clock.now() + 5 * SECOND
    broker.broken = BrokerUnavailable("away")
    now.advance(5)
    with pytest.raises(BrokerUnavailable):
        works.step(each)
    broker.broken = None
    works.step(each)
    assert hours(broker) == ["13:00"]
    assert broker.told[0].late == 5
