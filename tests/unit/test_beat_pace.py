"""How often the ledger is written."""

from __future__ import annotations

import pytest

from errands.beat.pace import GATHER_SECONDS, Pace, machine_use


def pace(use: float, *, events_max: int = 1_000_000, processors: int = 2) -> Pace:
    return Pace(events_max, use=lambda: use, processors=processors)


def test_an_idle_machine_writes_at_once_and_gathers_a_trickle() -> None:
    assert pace(10).pause(0.05, more=True, behind=0.5) == 0
    assert pace(10).pause(0.05, more=False, behind=0.5) == GATHER_SECONDS


@pytest.mark.parametrize(("processors", "rest"), [(1, 97 / 3), (2, 47 / 3), (4, 22 / 3), (64, 1)])
def test_a_busy_machine_gives_three_hundredths_of_itself(processors: int, rest: int) -> None:
    busy = pace(90, processors=processors)
    assert busy.pause(0.2, more=True, behind=1) == pytest.approx(0.2 * rest)
    assert busy.pause(0.001, more=True, behind=1) == GATHER_SECONDS


def test_who_is_far_behind_rests_no_more() -> None:
    assert pace(100).pause(0.2, more=True, behind=9.9) > 0
    assert pace(100).pause(0.2, more=True, behind=10) == 0


def test_a_long_batch_is_not_rested_for_longer_than_the_ledger_may_be_behind() -> None:
    assert pace(100).pause(2.0, more=True, behind=4) == pytest.approx(6)


def test_a_small_stream_is_not_let_grow() -> None:
    assert pace(100, events_max=1000).pause(0.2, more=True, behind=0.02) == 0
    assert pace(100, events_max=50_000).pause(0.2, more=True, behind=0.4) > 0


def test_the_use_of_this_machine_is_per_cent() -> None:
    assert 0 <= machine_use() <= 100
