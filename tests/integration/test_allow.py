"""What `run.allow` gives, decided by real servers: never over the limit, and all of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from errands import Limit, Run, Snooze
from errands.core.limits import Bound
from limits_desk import MINUTE, Desk, desk, rate, url, work_as

__all__ = ["desk", "url", "work_as"]  # fixtures

TEN = Bound(10, 60)


def take(desk: Desk, count: int, bound: Bound = TEN) -> tuple[int, float]:
    return desk.live.take("t", count, bound)


def test_all_or_nothing_until_a_period_is_over(desk: Desk) -> None:
    assert take(desk, 6) == (6, 0)
    given, wait = take(desk, 6)
    assert (given, 59 < wait <= 60) == (0, True)
    assert take(desk, 4) == (4, 0)
    desk.pass_time(MINUTE)
    assert take(desk, 10) == (10, 0)


def test_those_who_are_refused_are_told_times_one_after_the_other(desk: Desk) -> None:
    take(desk, 10)
    waits = [take(desk, 5)[1] for _ in range(3)]
    assert waits == sorted(waits)
    assert waits[2] - waits[1] > 29  # 5 of 10 in a minute


def test_a_limit_that_was_raised_does_not_wait_for_the_times_told_before(desk: Desk) -> None:
    take(desk, 10)
    assert max(take(desk, 10)[1] for _ in range(5)) > 4 * 60
    desk.limits.change("t", "10/s")
    desk.pass_time(1_000_000)
    assert take(desk, 10) == (10, 0)
    given, wait = take(desk, 10)
    assert (given, 0 < wait <= 1) == (0, True)
    desk.limits.reset("t")
    assert 50 < take(desk, 10)[1] <= 60


def test_a_limit_that_was_lowered_gives_all_it_has(desk: Desk) -> None:
    desk.limits.change("t", "3/m")
    assert take(desk, 6) == (3, 0)
    assert take(desk, 1)[0] == 0


def test_starts_of_tasks_count_in_the_same_limit(desk: Desk) -> None:
    assert desk.start("a", rate(10, 8)).verdict == "ok"
    assert take(desk, 3)[0] == 0
    assert take(desk, 2)[0] == 2
    assert desk.start("b", rate(10, 1)).verdict == "limited"


def test_what_is_kept_for_a_run_that_waits_is_not_given_away(desk: Desk) -> None:
    take(desk, 10)
    desk.queued("a")
    desk.wait("a", rate(10, 8))
    desk.pass_time(MINUTE)
    desk.look()
    assert take(desk, 3)[0] == 0
    assert take(desk, 2)[0] == 2


def test_no_window_ever_has_more_than_the_limit_from_many_at_once(desk: Desk) -> None:
    """Eight ask as fast as the server answers, for a limit of 20 in 100 ms."""
    given: list[int] = []
    desk.server.hset(desk.keys.limits, "rate:t", "20 100000")

    def now() -> float:
        seconds, micros = desk.server.time()
        return float(seconds + micros / 1e6)

    def ask() -> None:
        while len(given) < 40:
            count, _ = desk.live.take("t", 4, Bound(20, 1))
            given.extend([count] if count else [])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    begun = now()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # All was given within this time, which is so many whole windows and one that was begun.
    assert sum(given) <= 20 * ((now() - begun) // 0.1 + 1)


async def test_a_short_wait_is_waited_for_and_a_long_one_snoozes(desk: Desk) -> None:
    limits = {"t": Limit("10/m", name="t"), "fast": Limit("5/1s", name="fast")}
    run = Run("r", "send", log=desk.live, limits=limits)
    assert await run.allow("t", 10) == 10
    with pytest.raises(Snooze, match=r"waits for the limit t \(10/m\)") as caught:
        await run.allow("t", 5)
    assert 59 < caught.value.seconds <= 60
    assert [await run.allow("fast", 5, patience=2) for _ in range(2)] == [5, 5]


def test_the_log_is_forgotten_when_its_period_is_over(desk: Desk) -> None:
    take(desk, 1, Bound(10, 1))
    base: Any = desk.keys.limit("rate:t:")
    assert 0 < desk.server.pttl(base) <= 2100
