"""The checker finds each kind of broken promise, in histories made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.crash import checker
from tests.crash.checker import Final, Move, check
from tests.crash.history import Fact, History, What

from errands import State

RUN = Fact(what=What.ACCEPTED, at=0, run="a", key="k")


def life(
    run: str = "a", key: str = "k", *, at: float = 1.0, pid: int = 1, until: What = What.ENDED
) -> list[Fact]:
    """One attempt, up to and including `until`."""
    steps = [What.BEGUN, What.EFFECT, What.ENDED]
    return [
        Fact(what=what, at=at + number / 10, run=run, key=key, pid=pid)
        for number, what in enumerate(steps[: steps.index(until) + 1])
    ]


GOOD = [RUN, *life()]
OVER = State.SUCCEEDED
BACKWARDS = [Move("a", State.SUCCEEDED), Move("a", State.RUNNING)]
DONE = Final(states={"a": State.SUCCEEDED}, recorded={"a": State.SUCCEEDED})


def test_a_kept_promise_has_no_violations() -> None:
    report = check(GOOD, DONE, {"k"})
    assert report.violations == []
    assert (report.runs, report.recovery) == (1, None)


@pytest.mark.parametrize(
    ("what", "facts", "final", "keys"),
    [
        ("lost", [RUN], Final(), set()),
        ("lost", [RUN, *life(until=What.EFFECT)], Final(), {"k"}),
        ("lost", [RUN], Final(states={"a": State.FAILED}), set()),
        ("not done in time", [RUN], Final(held={"a"}), set()),
        ("not acknowledged", GOOD, replace(DONE, held={"a"}), {"k"}),
        ("done twice", [RUN, *life(), *life(at=2, pid=2)], DONE, {"k"}),
        ("given up", [RUN], Final(dead={"a"}), set()),
        ("safe to repeat", GOOD, DONE, set()),
        ("after it was revoked", [RUN, Fact(what=What.REVOKED, at=0.5, run="a"), *life()], DONE, {"k"}),
        ("moved as it may not", GOOD, replace(DONE, moves=BACKWARDS), {"k"}),
        ("told wrongly", GOOD, Final(states={"a": State.FAILED}), {"k"}),
        ("told wrongly", GOOD, Final(states={"a": State.RUNNING}), {"k"}),
        ("told wrongly", [RUN], Final(states={"a": State.SUCCEEDED}), set()),
        ("told wrongly", GOOD, replace(DONE, recorded={"a": State.RUNNING}), {"k"}),
        ("told wrongly", GOOD, replace(DONE, recorded={}), {"k"}),
    ],
)  # fmt: skip
def test_each_broken_promise_is_found(what: str, facts: list[Fact], final: Final, keys: set[str]) -> None:
    found = check(facts, final, keys).violations
    assert len([line for line in found if what in line]) == 1, found


@pytest.mark.parametrize(
    ("facts", "dead"),
    [
        ([RUN], {"a"}),
        ([RUN, Fact(what=What.REVOKED, at=1, run="a")], set()),
        ([RUN, Fact(what=What.RAISED, at=1, run="a")], set()),
        ([Fact(what=What.REFUSED, at=0, key="k")], set()),
    ],
    ids=["dead letter", "revoked", "its own error", "refused"],
)
def test_what_ended_otherwise_is_not_lost(facts: list[Fact], dead: set[str]) -> None:
    assert checker.unfinished(facts, dead) == []


def test_what_does_harm_may_be_given_up() -> None:
    assert check([replace_task("poison")], Final(dead={"a"}), set(), doomed=["poison"]).violations == []


def replace_task(task: str) -> Fact:
    return Fact(what=What.ACCEPTED, at=0, run="a", key="k", task=task)


def killed(pid: int, at: float) -> Fact:
    return Fact(what=What.KILLED, at=at, pid=pid)


def test_what_was_done_again_because_its_process_was_killed_is_told_apart() -> None:
    first, second = life(until=What.EFFECT), life(at=5, pid=2)
    assert checker.done_twice([RUN, *first, killed(1, 2.0), *second]) == ([], ["k"])
    # One that died before it did anything excuses nothing.
    assert checker.done_twice([RUN, killed(1, 0.5), *first, *second]) == (["k"], [])
    assert checker.done_twice([RUN, *first, killed(3, 2.0), *second]) == (["k"], [])
    # Nor does it excuse a third time.
    third = life(at=9, pid=3)
    assert checker.done_twice([RUN, *first, killed(1, 2.0), *second, *third]) == (["k"], [])


def test_one_key_sent_under_two_ids_is_done_twice() -> None:
    assert checker.done_twice([*life("a"), *life("b", at=2)])[0] == ["k"]


@pytest.mark.parametrize(
    "moves",
    [
        [Move("a", State.QUEUED), *(Move("a", State.RUNNING, n) for n in (1, 2)), Move("a", OVER, 2)],
        [Move("a", State.RUNNING, 1), Move("a", State.QUEUED)],
        [Move("a", State.FAILED, 1), Move("a", State.QUEUED, 1, reopened=True), Move("a", State.RUNNING, 2)],
        [Move("a", State.SUCCEEDED), Move("b", State.RUNNING)],
    ],
    ids=["a second worker", "told late", "tried again by hand", "another run"],
)  # fmt: skip
def test_legal_moves(moves: list[Move]) -> None:
    assert checker.illegal_moves(moves) == []


@pytest.mark.parametrize(
    "moves",
    [
        [Move("a", State.REVOKED), Move("a", State.RUNNING)],
        [Move("a", State.SUCCEEDED), Move("a", State.FAILED)],
        [Move("a", State.RUNNING, 2), Move("a", State.RETRYING, 1)],
    ],
)
def test_illegal_moves(moves: list[Move]) -> None:
    assert len(checker.illegal_moves(moves)) == 1


def test_recovery_is_until_the_last_open_run_goes_on() -> None:
    before = [RUN, replace_run("b"), *life("b", "l", at=0.5)]
    fault = Fact(what=What.FAULT, at=10)
    healed = Fact(what=What.HEALED, at=14)
    late = [replace_run("c"), *life("c", "m", at=30)]  # accepted later: of no matter
    assert checker.recovery([*before, fault, *life(at=17), *late]) == pytest.approx(7)
    assert checker.recovery([*before, fault, healed, *life(at=17)]) == pytest.approx(3)
    assert checker.recovery([*before, fault, *life(at=12), healed]) == pytest.approx(2)
    # Several faults: from the last one on. One that died while it was at work has not gone on by that.
    again = [*before, fault, *life(at=11, until=What.BEGUN), killed(1, 12), *life(at=20)]
    assert checker.recovery(again) == pytest.approx(8)
    assert checker.recovery([*before, fault]) is None
    assert checker.recovery(GOOD) is None


def replace_run(run: str) -> Fact:
    return Fact(what=What.ACCEPTED, at=0, run=run, key=run)


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.read() == []
    history.write(What.ACCEPTED, run="a", key="k")
    start = history.size
    history.write(What.BEGUN, run="a", key="k", attempt=2, worker="w")
    (fact,) = history.read(start)
    assert (fact.what, fact.run, fact.attempt, fact.worker) == (What.BEGUN, "a", 2, "w")
    assert len(history.read()) == 2


def test_a_key_is_taken_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert [history.once("k"), history.once("k"), History(tmp_path).once("k")] == [True, False, False]
    assert history.keys() == {"k"}
