"""A run as people see it: every state as itself, nothing left over from earlier attempts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from errands import Event, Keyring, Kind, State
from errands.broker.runs import LiveRun
from errands.ops.run_view import RunView

T = 1_767_268_800.0  # 2026-01-01T12:00:00Z
LEFT_OVER = {
    "task": "add",
    "result": {"old": True},
    "error": {"type": "ConnectionError", "message": "smtp.inside:25", "traceback": "Traceback …"},
    "progress": {"current": 1, "total": 4, "percentage": 25, "note": ""},
    "eta": T + 60,
    "queued_at": T,
    "started_at": T + 1,
    "finished_at": T + 2,
}


def live(state: State, **facts: Any) -> RunView:
    return RunView.of_live(LiveRun("r1", state, 2, 1, {**LEFT_OVER, **facts}))


@pytest.mark.parametrize(
    ("state", "status", "bar", "ready", "shown"),
    [
        (State.SCHEDULED, "PENDING", "queued", False, {"eta"}),
        (State.QUEUED, "PENDING", "queued", False, set()),
        (State.RUNNING, "PROGRESS", "processing", False, {"progress", "started_at"}),
        (State.RETRYING, "RETRY", "processing", False, {"error", "eta", "progress", "started_at"}),
        (State.SUCCEEDED, "SUCCESS", "completed", True, {"result", "progress", "started_at", "finished_at"}),
        (State.FAILED, "FAILURE", "failed", True, {"error", "progress", "started_at", "finished_at"}),
        (State.DISCARDED, "FAILURE", "failed", True, {"error", "progress", "started_at", "finished_at"}),
        (State.REVOKED, "REVOKED", "failed", True, {"error", "progress", "started_at", "finished_at"}),
        (State.EXPIRED, "REVOKED", "failed", True, {"error", "progress", "started_at", "finished_at"}),
    ],
)
def test_each_state_shows_what_belongs_to_it(
    state: State, status: str, bar: str, ready: bool, shown: set[str]
) -> None:
    view = live(state)
    answer = view.as_dict(in_full=False)
    assert (answer["status"], answer["state"], answer["ready"]) == (status, state.value, ready)
    assert answer["successful"] is (state is State.SUCCEEDED)
    assert view.as_progress(in_full=False)["status"] == bar
    sometimes = {"result", "error", "progress", "eta", "started_at", "finished_at"}
    assert {name for name in sometimes if answer[name] is not None} == shown
    assert answer["queued_at"] == "2026-01-01T12:00:00.000Z"
    if state is not State.DISCARDED:  # its text is written for people: see below
        assert "smtp.inside" not in json.dumps(answer)
    assert "Traceback" not in json.dumps(view.as_dict(in_full=True))


def test_running_without_progress_is_started() -> None:
    assert live(State.RUNNING, progress=None).status == "STARTED"


@pytest.mark.parametrize(
    ("kind", "for_users"),
    [
        ("Discard", "seat 4 is taken"),
        ("SeatTaken", "seat 4 is taken"),
        ("InvalidArguments", "The task failed (InvalidArguments)."),
        ("SecretError", "The task failed (SecretError)."),
    ],
)
def test_the_text_of_a_discard_is_for_people(kind: str, for_users: str) -> None:
    view = live(State.DISCARDED, error={"type": kind, "message": "seat 4 is taken"})
    assert view.error_text(in_full=False) == for_users
    assert view.error_text(in_full=True) == "seat 4 is taken"


def test_a_snooze_is_no_error() -> None:
    assert live(State.RETRYING, error={"type": "Snooze", "message": "again in 5 s"}).error is None


def test_secrets_and_what_is_no_json_are_taken_out() -> None:
    sealed = Keyring.parse(Keyring.new_key()).seal("sesame", "add")
    view = live(State.SUCCEEDED, result={"token": [sealed], "share": float("nan")}, args=[sealed], kwargs={})
    answer = view.as_dict(in_full=True)
    assert answer["result"] == {"token": ["***"], "share": None}
    assert answer["args"] == ["***"]
    json.dumps(answer, allow_nan=False)


def test_a_bar_without_numbers_ends_at_100() -> None:
    bar = live(State.SUCCEEDED, progress=None).as_progress(in_full=False)
    assert (bar["current"], bar["total"], bar["percentage"]) == (0, None, 100)
    bar = live(State.SUCCEEDED).as_progress(in_full=False)
    assert (bar["current"], bar["total"], bar["percentage"]) == (4, 4, 100)


def test_a_view_follows_events() -> None:
    def event(kind: Kind, **facts: Any) -> Event:
        return Event(kind=kind, run_id="r1", at=T + 10, **facts)

    view = RunView(id="r1", state=State.QUEUED, task="add")
    view = view.after(event(Kind.STARTED, attempt=1, worker="one@host"))
    assert (view.status, view.attempt, view.worker) == ("STARTED", 1, "one@host")
    view = view.after(event(Kind.QUEUED))
    assert view.state is State.RUNNING
    view = view.after(event(Kind.PROGRESS, progress={"current": 1, "total": 2, "percentage": 50, "note": ""}))
    assert view.status == "PROGRESS"
    view = view.after(event(Kind.RETRYING, error={"type": "OSError", "message": "x"}, eta=T + 70))
    assert (view.status, view.error is not None, view.eta is not None) == ("RETRY", True, True)
    view = view.after(event(Kind.STARTED, attempt=2))
    assert (view.status, view.error, view.progress, view.eta) == ("STARTED", None, None, None)
    view = view.after(event(Kind.SUCCEEDED, result=7))
    assert (view.status, view.result, view.finished_at is not None) == ("SUCCESS", 7, True)
