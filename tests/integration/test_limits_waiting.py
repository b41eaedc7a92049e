"""Who waits for a limit, on real servers: nothing lost, nobody overtaken, nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest

from errands.broker import queues
from errands.broker.runs import Verdict
from errands.broker.streams.layout import GROUP, tag_of
from errands.core.events import Kind
from errands.core.states import State
from limits_desk import MINUTE, QUEUE, Desk, desk, event, rate, slots, url

__all__ = ["desk", "url"]  # fixtures


# -- who waits


def test_who_waits_is_let_go_on_in_order_and_is_not_overtaken(desk: Desk) -> None:
    desk.queued("a", "b", "c", "d", "e")
    desk.start("x", rate())
    desk.start("y", rate())
    assert desk.wait("c", rate(), since=3).verdict is Verdict.OK
    desk.wait("d", rate(), since=1, level="low")
    desk.wait("e", rate(), since=9, level="high")
    desk.wait("a", rate(), since=1)
    desk.wait("b", rate(), since=2)
    ms, more = desk.look()
    assert (59_000 < ms <= 60_000, more, desk.sent()) == (True, False, [])
    desk.pass_time(MINUTE)
    assert desk.start("new", rate()).verdict is Verdict.LIMITED  # there is room, for those who wait
    desk.look()
    assert (desk.sent("high"), desk.sent()) == (["e"], ["a"])
    assert desk.start("new", rate()).verdict is Verdict.LIMITED
    assert desk.start("e", rate()).verdict is Verdict.OK
    assert desk.start("a", rate()).verdict is Verdict.OK
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["a", "b", "c"]


def test_a_run_that_waits_says_so_and_counts_in_the_depth(desk: Desk) -> None:
    desk.queued("a")
    desk.start("x", rate(1))
    seconds, micros = desk.server.time()
    desk.wait("a", rate(1), since=int(seconds * 1000 + micros / 1000) - 7000)
    run = desk.live.get("a")
    assert run is not None
    assert (run.state, run.attempt, run.facts["waits_for"]) == (State.QUEUED, 0, "waits")
    depth = desk.depth()
    assert (depth.depth, depth.limited) == (1, 1)
    assert depth.oldest_s is not None
    assert depth.oldest_s >= 7
    desk.pass_time(MINUTE)
    desk.look()
    assert (desk.depth().depth, desk.depth().limited) == (1, 0)
    desk.start("a", rate(1))
    started = desk.live.get("a")
    assert started is not None
    assert "waits_for" not in started.facts


def test_a_message_that_is_let_wait_twice_waits_once(desk: Desk) -> None:
    """The worker was killed before it acknowledged the message that it had let wait."""
    desk.queued("a")
    desk.start("x", rate(1))
    for _ in range(2):
        assert desk.start("a", rate(1)).verdict is Verdict.LIMITED
        desk.wait("a", rate(1), since=5)
    assert desk.depth().limited == 1
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["a"]
    desk.start("a", rate(1))
    # A copy that comes only now is void.
    assert desk.wait("a", rate(1)).verdict is Verdict.RUNNING
    desk.end("a")
    assert desk.wait("a", rate(1)).verdict is Verdict.REFUSED
    assert desk.left() == []


@pytest.mark.parametrize("front", [False, True])
def test_a_message_is_moved_as_it_is_from_where_the_worker_took_it(desk: Desk, front: bool) -> None:
    message = b'{"any": "bytes\\u0000", "sig": "of these"}'
    stream = desk.keys.front(QUEUE, "high") if front else desk.keys.stream(QUEUE, "high")
    desk.queued("a")
    desk.start("x", rate(1))
    tag = desk.take(message, stream)
    assert desk.move(tag, "a", rate(1)).verdict is Verdict.OK
    assert (desk.server.xlen(stream), desk.server.xpending(stream, GROUP)["pending"]) == (0, 0)  # type: ignore[call-overload,index]
    assert desk.depth().limited == 1
    desk.pass_time(MINUTE)
    desk.look()
    [(_, fields)] = desk.server.xrange(desk.keys.front(QUEUE, "high"))  # type: ignore[misc]
    assert fields == {b"m": message}
    desk.start("a", rate(1))
    desk.end("a")
    assert desk.left() == []


def test_a_message_that_is_moved_twice_waits_once(desk: Desk) -> None:
    """The reply to the first time was lost."""
    desk.queued("a")
    desk.start("x", rate(1))
    tag = desk.take(b"a:0", desk.keys.stream(QUEUE, "normal"))
    for _ in range(2):
        assert desk.move(tag, "a", rate(1)).verdict is Verdict.OK
    assert desk.depth().limited == 1
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["a"]


def test_a_message_that_lies_elsewhere_is_not_moved(desk: Desk) -> None:
    """The broker is another server than the one that keeps the limits."""
    desk.queued("a")
    desk.start("x", rate(1))
    tag = tag_of(desk.keys.stream(QUEUE, "normal"), "1-1")
    assert desk.move(tag, "a", rate(1)).verdict is Verdict.MISSING
    assert desk.depth().limited == 0
    desk.wait("a", rate(1))  # so it is sent there
    assert desk.depth().limited == 1
    assert desk.move(tag, "a", rate(1), hop=1).verdict is Verdict.MISSING  # what waits is an older one


def test_a_message_that_is_void_is_not_moved(desk: Desk) -> None:
    desk.queued("a")
    desk.live.record(event(Kind.REVOKED, "a"))
    tag = desk.take(b"a:0", desk.keys.stream(QUEUE, "normal"))
    assert desk.move(tag, "a", rate(1)).verdict is Verdict.REFUSED
    assert (desk.depth().limited, desk.depth().held) == (0, 1)  # the worker acknowledges it


def test_an_older_message_does_not_take_the_place_of_a_newer_one(desk: Desk) -> None:
    desk.queued("a")
    desk.start("x", rate(1))
    desk.wait("a", rate(1), hop=1)
    assert desk.wait("a", rate(1), hop=0).verdict is Verdict.STALE
    desk.pass_time(MINUTE)
    desk.look()
    rows: Any = desk.server.xrange(desk.keys.front(QUEUE, "normal"))
    assert [fields for _, fields in rows] == [{b"m": b"a:1"}]


@pytest.mark.parametrize("how", ["revoked", "purged"])
def test_what_is_taken_out_leaves_nothing_behind(desk: Desk, how: str) -> None:
    desk.queued("a", "b")
    desk.start("x", rate(1))
    both = (slots(1, key="5"), rate(1))
    desk.wait("a", *both)
    assert (
        desk.start("b", slots(1, key="5")).verdict is Verdict.LIMITED
    )  # a keeps its share of the first rule
    if how == "revoked":
        desk.live.record(event(Kind.REVOKED, "a"))
        assert queues.remove_delayed(desk.server, desk.keys, QUEUE, "a") == 1
    else:
        assert queues.purge(desk.server, desk.keys, QUEUE) == 1
    assert desk.start("b", slots(1, key="5")).verdict is Verdict.OK
    desk.pass_time(MINUTE)
    desk.look()
    assert (desk.sent(), desk.depth().depth) == ([], 0)


def test_who_will_not_start_takes_no_share(desk: Desk) -> None:
    """Revoked without being taken out, or expired: a worker finds that out, and it costs nobody anything."""
    desk.queued("a", "b", "c")
    desk.start("x", rate(1))
    desk.wait("a", rate(1), since=1)
    desk.wait("b", rate(1), since=2, expires=1000)
    desk.wait("c", rate(1), since=3)
    desk.live.record(event(Kind.REVOKED, "a"))
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["a", "b", "c"]
    assert desk.start("a", rate(1)).verdict is Verdict.REFUSED
    assert desk.start("c", rate(1)).verdict is Verdict.OK


def test_a_share_is_kept_for_a_while_only(desk: Desk) -> None:
    desk.queued("a", "b")
    desk.start("x", rate(1))
    desk.wait("a", rate(1), since=1)
    desk.wait("b", rate(1), since=2)
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.sent() == ["a"]
    desk.pass_time(31_000_000)  # nobody has started it; its queue may be paused
    desk.look()
    assert desk.sent() == ["a", "b"]
    assert desk.start("b", rate(1)).verdict is Verdict.OK
    assert desk.start("a", rate(1)).verdict is Verdict.LIMITED


def test_a_share_of_a_run_that_is_refused_is_free_at_once(desk: Desk) -> None:
    desk.queued("a", "b")
    desk.start("x", rate(1))
    desk.wait("a", rate(1), since=1)
    desk.wait("b", rate(1), since=2)
    desk.pass_time(MINUTE)
    desk.look()
    desk.live.record(event(Kind.REVOKED, "a"))
    assert desk.start("a", rate(1)).verdict is Verdict.REFUSED
    desk.look()
    assert desk.sent() == ["a", "b"]


def test_a_share_of_a_member_of_a_revoked_batch_is_free_at_once(desk: Desk) -> None:
    desk.queued("a", "b")
    desk.server.hset(f"{desk.keys.prefix}run:a", "batch", "letters")
    desk.server.hset(f"{desk.keys.prefix}batch:letters", mapping={"state": "revoked", "total": 1})
    desk.start("x", rate(1))
    desk.wait("a", rate(1), since=1)
    desk.wait("b", rate(1), since=2)
    desk.pass_time(MINUTE)
    desk.look()
    assert desk.start("a", rate(1)).verdict is Verdict.REFUSED
    desk.look()
    assert desk.sent() == ["a", "b"]


def test_rules_are_waited_for_one_after_the_other(desk: Desk) -> None:
    """First for what holds for some alone: who has that and waits for all keeps nobody else waiting."""
    desk.queued("a", "b", "c")
    desk.start("x", slots(1, key="5"), rate(1))
    desk.wait("a", slots(1, key="5"), rate(1), since=1)
    desk.wait("b", slots(1, key="5"), rate(1), since=2)
    desk.wait("c", slots(1, key="6"), rate(1), since=3)
    desk.end("x")
    # c has its slot, and came to the rate first; a waits behind it, and b behind a.
    desk.pass_time(MINUTE)
    desk.look()
    first = desk.sent()
    assert len(first) == 1
    desk.start(first[0], slots(1, key="6" if first == ["c"] else "5"), rate(1))
    desk.end(first[0])
    for n in (2, 3):
        desk.pass_time(MINUTE)
        desk.look()
        assert len(desk.sent()) == n
        desk.start(desk.sent()[-1], slots(1, key="6" if desk.sent()[-1] == "c" else "5"), rate(1))
        desk.end(desk.sent()[-1])
    assert sorted(desk.sent()) == ["a", "b", "c"]
    assert desk.sent().index("a") < desk.sent().index("b")
    assert desk.left() == []


def test_thousands_who_wait_are_let_go_on_in_bounded_steps(desk: Desk) -> None:
    rule = rate(1000)
    for n in range(1000):
        desk.start(f"x{n}", rule)
    for n in range(250):
        desk.wait(f"r{n:03}", rule, since=n)
    desk.pass_time(MINUTE)
    assert desk.look()[1]
    assert len(desk.sent()) == 100
    while desk.look()[1]:
        pass
    assert desk.sent() == [f"r{n:03}" for n in range(250)]


def test_workers_that_cannot_let_runs_wait_are_told_when_they_may_come_again(desk: Desk) -> None:
    """Not all at once, and not before their time: with 2 a minute, the fifth comes in the third minute."""
    for run in "ab":
        desk.start(run, rate(), apart=True)
    waits = [int(desk.start(run, rate(), apart=True).about.split()[3]) / 1000 for run in "cdef"]
    assert [round(wait) for wait in waits] == [60, 90, 120, 150]
    desk.start("s", slots(), apart=True)
    waits = [int(desk.start(f"s{n}", slots(), apart=True).about.split()[3]) for n in range(3)]
    assert 0 < waits[0] < waits[1] < waits[2]
