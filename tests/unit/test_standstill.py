"""When a worker is taken to be stuck: its hub stands still, round after round, though its broker answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from errands.worker.standstill import Standstill
from errands.worker.stop_flag import set_stopping


class Broker:
    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.up


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def standstill(broker: Broker) -> Iterator[Standstill]:
    made = Standstill(broker, rounds=3)
    yield made
    set_stopping(False)


def rounds(standstill: Standstill, number: int) -> list[bool]:
    return [standstill.look() for _ in range(number)]


def test_a_hub_that_turns_is_well_and_nobody_is_asked(broker: Broker, standstill: Standstill) -> None:
    for _ in range(10):
        standstill.turn()
        assert not standstill.look()
    assert broker.asked == 0


def test_a_hub_that_stands_still_is_stuck_after_some_rounds(standstill: Standstill) -> None:
    standstill.turn()
    assert rounds(standstill, 4) == [False, False, False, True]


def test_a_turn_in_between_begins_anew(standstill: Standstill) -> None:
    standstill.turn()
    assert rounds(standstill, 3) == [False, False, False]
    standstill.turn()
    assert rounds(standstill, 4) == [False, False, False, True]


def test_a_worker_that_waits_for_its_broker_is_well_however_long(
    broker: Broker, standstill: Standstill
) -> None:
    standstill.turn()
    standstill.look()
    broker.up = False
    assert not any(rounds(standstill, 100))
    broker.up = True  # it has as long to come back as any
    assert rounds(standstill, 3) == [False, False, True]


def test_one_that_has_not_begun_or_is_stopping_is_left_alone(broker: Broker, standstill: Standstill) -> None:
    assert not any(rounds(standstill, 10))
    standstill.turn()
    set_stopping(True)
    assert not any(rounds(standstill, 10))
    assert broker.asked == 0
