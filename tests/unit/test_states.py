"""The states of a run, and what Celery calls them."""

from __future__ import annotations

from errands.core.states import FINAL, MOVES, State, celery_status, may_move


def test_nothing_leads_out_of_a_final_state() -> None:
    for before in FINAL:
        assert not [after for after in State if may_move(before, after)]


def test_every_state_can_be_reached() -> None:
    assert set(MOVES) == set(State)


def test_every_state_is_told_as_itself() -> None:
    """Mistake 24: RETRY, REVOKED and STARTED were answered as FAILURE."""
    told = {state: celery_status(state) for state in State}
    assert told[State.RETRYING] == "RETRY"
    assert told[State.REVOKED] == "REVOKED"
    assert told[State.RUNNING] == "STARTED"
    assert {state for state, status in told.items() if status == "FAILURE"} == {State.FAILED, State.DISCARDED}
    assert celery_status(State.RUNNING, has_progress=True) == "PROGRESS"
