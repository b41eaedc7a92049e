"""What the scripts decide about limits, on real servers: never over, and every slot given back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from errands.broker.runs import Verdict
from errands.core.events import Event, Kind
from errands.core.states import State
from limits_desk import MINUTE, Desk, desk, event, rate, slots, url, work_as

__all__ = ["desk", "url", "work_as"]  # fixtures


# -- how often


def test_over_the_limit_is_refused_until_a_period_is_over(desk: Desk) -> None:
    assert [desk.start(run, rate()).verdict for run in "abc"] == ["ok", "ok", "limited"]
    refused = desk.start("c", rate())
    assert (refused.attempt, refused.about) == (0, f"0 2 {MINUTE} 0")
    assert desk.live.get("c") is None  # nothing was written
    desk.pass_time(MINUTE - 5_000_000)
    assert desk.start("c", rate()).verdict is Verdict.LIMITED
    desk.pass_time(5_000_000)
    assert desk.start("c", rate())[:2] == (Verdict.OK, 1)


def test_no_window_ever_counts_more_than_the_limit(desk: Desk) -> None:
    """Starts as fast as the server answers, of random weight, in a period of a tenth of a second."""
    weights, n, period, most = random.Random(7), 0, 100_000, 20
    costs: dict[str, int] = {}
    while n < 1500 or len(costs) <= 20:
        n += 1
        cost = weights.randint(1, 6)
        if desk.start(f"r{n}", rate(most, cost, period=period)).verdict is Verdict.OK:
            costs[f"r{n}"] = cost
    rows: Any = desk.server.xrange(desk.keys.events)
    starts = [(int(entry.split(b"-")[0]), costs[Event.from_json(row[b"e"]).run_id]) for entry, row in rows]
    assert len(starts) > 20
    for at, _ in starts:  # ids are rounded down to the ms
        assert sum(cost for other, cost in starts if 0 <= other - at < period / 1000 - 1) <= most


def test_the_log_of_a_large_limit_stays_small(desk: Desk) -> None:
    period = 1_000_000
    for n in range(2000):
        desk.start(f"r{n}", rate(100_000, period=period))
    assert desk.server.zcard(f"{desk.keys.limit('rate:t:')}:times") <= 101
    assert desk.server.hlen(desk.keys.limit("rate:t:")) <= 103


def test_keys_have_limits_of_their_own(desk: Desk) -> None:
    assert desk.start("a", rate(1, key="5")).verdict is Verdict.OK
    assert desk.start("b", rate(1, key="5")).verdict is Verdict.LIMITED
    assert desk.start("c", rate(1, key="6")).verdict is Verdict.OK


def test_a_refusal_by_one_rule_takes_nothing_of_the_others(desk: Desk) -> None:
    desk.start("a", slots(1))
    for _ in range(3):
        assert desk.start("b", rate(1), slots(1)).about.startswith("1 ")
    assert desk.start("c", rate(1)).verdict is Verdict.OK
    desk.end("a")
    assert desk.start("d", slots(1), rate(1)).about.startswith("1 ")
    assert desk.start("e", slots(1)).verdict is Verdict.OK


def test_a_clock_that_was_set_back_lets_starts_count_no_longer(desk: Desk) -> None:
    desk.start("a", rate(1))
    desk.queued("b")
    desk.wait("b", rate(1))
    desk.pass_time(-3600 * 1_000_000)  # noted an hour ahead of what the clock says now
    desk.server.zadd(desk.keys.limits_waiting, {desk.keys.limit("rate:t:"): 0})
    ms, _ = desk.look()
    assert 0 < ms <= 60_000


# -- how many at once


def test_a_slot_is_given_on_when_its_run_ends(desk: Desk, work_as: Callable[[str], None]) -> None:
    work_as("w")
    desk.queued("a", "b", "c")
    desk.start("a", slots())
    assert desk.start("b", slots()).verdict is Verdict.LIMITED
    desk.wait("b", slots(), since=1)
    desk.wait("c", slots(), since=2)
    assert desk.sent() == []
    desk.end("a", attempt=1)
    assert desk.sent() == ["b"]
    assert desk.start("d", slots()).verdict is Verdict.LIMITED  # it is b's
    assert desk.start("b", slots())[:2] == (Verdict.OK, 1)
    desk.end("b", Kind.RETRYING, attempt=1)
    assert desk.sent() == ["b", "c"]
    desk.start("c", slots())
    desk.end("c", Kind.FAILED, attempt=1)
    assert desk.left() == []


@pytest.mark.parametrize(
    "kind", [Kind.SUCCEEDED, Kind.FAILED, Kind.DISCARDED, Kind.RETRYING, Kind.SNOOZED, Kind.LOST]
)
def test_every_end_of_an_attempt_gives_the_slot_back(desk: Desk, kind: Kind) -> None:
    desk.start("a", slots())
    desk.end("a", kind)
    assert desk.start("b", slots()).verdict is Verdict.OK


def test_the_slot_of_a_dead_worker_is_free_when_its_lease_is_over(
    desk: Desk, work_as: Callable[[str], None]
) -> None:
    work_as("dead")
    desk.start("a", slots())
    work_as("alive")
    desk.queued("b")
    desk.wait("b", slots())
    desk.pass_time(6_000_000)
    desk.look()
    assert desk.sent() == []  # its worker may live
    desk.server.delete(desk.keys.lease("dead"))
    desk.pass_time(6_000_000)
    desk.look()
    assert desk.sent() == ["b"]
    # The run of the dead one comes back, and waits for its turn; it is not running, and nothing counts anew.
    refused = desk.start("a", slots(), redelivered=True)
    assert (refused.verdict, refused.attempt, refused.about.split()[-1]) == (Verdict.LIMITED, 1, "lost")
    desk.wait("a", slots(), attempt=1)
    run = desk.live.get("a")
    assert run is not None
    assert (run.state, run.attempt, run.facts["waits_for"]) == (State.RETRYING, 1, "waits")
    desk.start("b", slots())
    desk.end("b")
    assert desk.sent() == ["b", "a"]
    assert desk.start("a", slots())[:3] == (Verdict.OK, 2, 2)  # deliveries go on counting: poison is found


def test_the_run_of_a_dead_worker_takes_its_own_slot_again(
    desk: Desk, work_as: Callable[[str], None]
) -> None:
    work_as("dead")
    desk.start("a", slots())
    desk.server.delete(desk.keys.lease("dead"))
    work_as("alive")
    desk.queued("b")
    desk.wait("b", slots())
    assert desk.start("a", slots(), redelivered=True)[:2] == (Verdict.OK, 2)
    desk.pass_time(6_000_000)
    desk.look()
    assert desk.sent() == []


def test_a_slot_ends_with_the_hard_time_limit(desk: Desk, work_as: Callable[[str], None]) -> None:
    work_as("w")
    desk.start("a", slots(), time_limit=100)
    desk.queued("b")
    desk.wait("b", slots())
    held = desk.server.hget(desk.keys.run("a"), "slots")
    assert held is not None
    deadline, _, base = held.partition(b"\0")
    desk.server.hset(desk.keys.run("a"), "slots", b"%d\0%s" % (int(deadline) - 101, base))
    desk.pass_time(6_000_000)
    desk.look()
    assert desk.sent() == ["b"]


def test_who_is_revoked_while_at_work_keeps_the_slot_until_the_attempt_is_over(
    desk: Desk, work_as: Callable[[str], None]
) -> None:
    work_as("w")
    desk.queued("b")
    desk.start("a", slots())
    desk.wait("b", slots())
    desk.live.record(event(Kind.REVOKED, "a"))
    desk.pass_time(6_000_000)
    desk.look()
    assert desk.sent() == []
    assert desk.end("a", attempt=1).verdict is Verdict.REFUSED
    assert desk.sent() == ["b"]


def test_a_forgotten_run_holds_nothing(desk: Desk, work_as: Callable[[str], None]) -> None:
    work_as("w")
    desk.start("a", slots())
    desk.server.delete(desk.keys.run("a"))
    desk.queued("b")
    desk.wait("b", slots())
    desk.pass_time(6_000_000)
    desk.look()
    assert desk.sent() == ["b"]


# -- changed while running


def test_a_changed_limit_holds_at_once_for_all(desk: Desk) -> None:
    desk.queued("c")
    assert [desk.start(run, rate()).verdict for run in "abc"] == ["ok", "ok", "limited"]
    desk.wait("c", rate())
    desk.limits.change("t", "3/m")
    assert [(s.declared, s.now, s.waiting) for s in desk.limits.all() if s.now != "2 at once"] == [
        ("2/m", "3/m", 1)
    ]
    desk.look()
    assert desk.sent() == ["c"]
    assert desk.start("c", rate()).verdict is Verdict.OK
    desk.limits.change("t", "1/s")
    assert desk.start("d", rate()).about.startswith("0 1 1000000")
    desk.limits.reset("t")
    assert desk.start("d", rate()).about.startswith(f"0 2 {MINUTE}")


def test_the_number_of_slots_is_changed(desk: Desk) -> None:
    assert [desk.start(run, slots(2)).verdict for run in "abc"] == ["ok", "ok", "limited"]
    desk.limits.change("t", 3)
    assert [desk.start(run, slots(2)).verdict for run in "cd"] == ["ok", "limited"]
    desk.limits.change("t", 1)
    desk.end("a")
    desk.end("b")
    assert desk.start("d", slots(2)).verdict is Verdict.LIMITED


def test_who_counts_more_than_a_lowered_limit_waits_aside(desk: Desk) -> None:
    desk.queued("big", "small")
    desk.limits.change("t", "1/m")
    desk.start("x", rate())
    desk.wait("big", rate(cost=2), since=1)
    desk.wait("small", rate(), since=2)
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["small"]
    desk.start("small", rate())
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["small"]
    desk.limits.reset("t")
    desk.look()
    assert desk.sent() == ["small", "big"]
    assert desk.start("big", rate(cost=2)).verdict is Verdict.OK
