"""The retry policy is what happens, to the second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errands.core.errors import Discard, InvalidArguments, SecretError, Snooze
from errands.core.outcome import Again, Over, decide
from errands.core.retry import Retry


def no_jitter() -> float:
    return 0.5


def test_waits_are_those_that_were_promised() -> None:
    """Mistake 14: `2 ** retries` waited 1, 2, 4 s where 60, 120, 240 were promised."""
    policy = Retry(3, first=60, most=600)
    assert [policy.wait(n, random=no_jitter) for n in (1, 2, 3, 4, 5)] == [60, 120, 240, 480, 600]


def test_explicit_delays_come_in_order_and_the_last_repeats() -> None:
    policy = Retry(5, delays=(5, 300, 1800))
    assert [policy.wait(n, random=no_jitter) for n in (1, 2, 3, 4)] == [5, 300, 1800, 1800]


@given(
    st.integers(1, 500),
    st.floats(0, 1e4),
    st.floats(1, 10),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
)
def test_a_wait_is_never_negative_nor_over_the_most(
    attempt: int, first: float, factor: float, jitter: float, chance: float
) -> None:
    policy = Retry(3, first=first, most=1e4, factor=factor, jitter=jitter)
    assert 0 <= policy.wait(attempt, random=lambda: chance) <= 1e4


def test_jitter_spreads_both_ways() -> None:
    policy = Retry(3, first=100, most=1000, jitter=0.1)
    assert policy.wait(1, random=lambda: 0.0) == pytest.approx(90)
    assert policy.wait(1, random=lambda: 0.999999) == pytest.approx(110, abs=0.01)


def test_retry_after_is_honoured_even_over_the_most() -> None:
    error = ConnectionError("busy")
    error.retry_after = 3600  # type: ignore[attr-defined]
    assert Retry(3, first=1, most=10).wait(1, error, random=no_jitter) == 3600


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"times": -1}, "times"),
        ({"first": -1}, "first"),
        ({"first": 60, "most": 30}, "most"),
        ({"factor": 0.5}, "factor"),
        ({"jitter": 2}, "jitter"),
        ({"delays": (1, -1)}, "delays"),
    ],
)
def test_a_policy_that_contradicts_itself_is_refused(options: dict[str, float], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Retry(**options)  # type: ignore[arg-type]


def test_permanent_errors_are_not_tried_again() -> None:
    """Mistake 4: "course not complete" was retried three times, five minutes apart."""
    for error in (Discard("no"), InvalidArguments("t", ["x"]), SecretError("no key")):
        assert decide(error, Retry(3), tries=1) == Over(error, discarded=True)


def test_a_snooze_is_not_counted_and_has_no_end() -> None:
    outcome = decide(Snooze(30), Retry(0), tries=99)
    assert isinstance(outcome, Again)
    assert (outcome.wait, outcome.counted) == (30, False)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_snooze_of_no_time_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="zero or more"):
        Snooze(seconds)


def test_tries_are_used_up() -> None:
    error = RuntimeError("passing")
    decided = [type(decide(error, Retry(3), tries=n)) for n in (1, 2, 3, 4)]
    assert decided == [Again, Again, Again, Over]


def test_errors_outside_of_the_policy_end_the_run() -> None:
    policy = Retry(3, on=(OSError,), never=(FileNotFoundError,))
    assert isinstance(decide(TimeoutError(), policy, tries=1), Again)
    assert isinstance(decide(FileNotFoundError(), policy, tries=1), Over)
    assert isinstance(decide(ValueError(), policy, tries=1), Over)
