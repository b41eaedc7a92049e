"""How the outside checks compare: what counts as a difference, what excuses one, when an excuse is stale."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

OUTSIDE = Path(__file__).parents[1] / "outside"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"outside_{name}", OUTSIDE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


verdict = _module("verdict")
suites = _module("suites")
ARRANGEMENTS = [one.name for one in suites.OURS]


def _excuse(*tests: str, arrangement: str = "kombu") -> list[object]:
    return [verdict.Allowed("meant so", (arrangement,), tests)]


@pytest.mark.parametrize(
    ("ours", "stock", "worse"),
    [
        ("passed", "passed", False),
        ("failed", "passed", True),
        ("no outcome", "passed", True),
        ("skipped", "passed", True),
        ("xfailed", "passed", True),
        ("failed", "failed", False),
        ("failed", "skipped", True),
        ("xfailed", "xpassed", False),
        ("passed", "failed", False),
        ("passed", None, False),
        ("failed", None, True),
    ],
)
def test_an_outcome_is_compared_with_stocks(ours: str, stock: str | None, worse: bool) -> None:
    assert verdict.differs(ours, stock) is worse


def test_a_difference_fails_unless_it_is_allowed_for_that_arrangement() -> None:
    ours, stock = {"a": "failed", "b": "passed"}, {"a": "passed", "b": "passed"}

    assert verdict.judge(ours, stock, [], "kombu").different == ["a"]
    assert verdict.judge(ours, stock, _excuse("a"), "kombu").good
    assert verdict.judge(ours, stock, _excuse("a", arrangement="celery-pool"), "kombu").different == ["a"]


def test_an_allowed_difference_that_is_none_is_stale() -> None:
    stock = {"a": "passed", "b": "failed"}

    found = verdict.judge({"a": "passed", "b": "failed"}, stock, _excuse("a", "b"), "kombu")

    assert found.stale == ["a", "b"]
    assert not found.good
    assert verdict.unknown(_excuse("a", "gone"), "kombu", stock) == ["gone"]


def test_an_allowed_difference_that_shows_itself_sometimes_is_not_stale() -> None:
    race = [verdict.Allowed("it races", ("kombu",), ("a",), sometimes=True)]

    assert verdict.judge({"a": "passed"}, {"a": "passed"}, race, "kombu").good
    assert verdict.judge({"a": "failed"}, {"a": "passed"}, race, "kombu").good


def test_a_test_that_stock_ran_must_run() -> None:
    found = verdict.judge({"a": "passed"}, {"a": "passed", "b": "passed"}, [], "kombu")

    assert found.not_run == ["b"]
    assert not found.good


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[difference]]\nreason = " "\narrangements = ["kombu"]\ntests = ["a"]', "needs a reason"),
        ('[[difference]]\nreason = "r"\narrangements = ["kombo"]\ntests = ["a"]', "unknown arrangements"),
        ('[[difference]]\nreason = "r"\narrangements = ["kombu"]\ntests = ["a"]\n' * 2, "names again"),
    ],
)
def test_an_entry_of_the_list_that_says_too_little_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        verdict.read_allowed(text, ARRANGEMENTS)


def test_the_list_and_stocks_outcomes_agree() -> None:
    """Each excused test is one that passes on stock, or one of ours that stock does not have."""
    kept = json.loads((OUTSIDE / "stock.json").read_text())["outcomes"]
    package = {one.name: one.package for one in suites.OURS}

    for entry in verdict.read_allowed((OUTSIDE / "allowed.toml").read_text(), ARRANGEMENTS):
        for arrangement in entry.arrangements:
            outcomes = kept[package[arrangement]]
            assert {outcomes.get(test) for test in entry.tests} <= {"passed", "skipped", "xfailed", "xpassed"}


def test_what_is_chosen_or_left_out_is_there_on_stock() -> None:
    kept = json.loads((OUTSIDE / "stock.json").read_text())["outcomes"]
    tests = [test for outcomes in kept.values() for test in outcomes]

    prefixes = [prefix for parts in suites.JOBS.values() for part in parts for prefix in part]
    for prefix in [*prefixes, *suites.SLOW]:
        assert any(suites.chosen(test, [prefix]) for test in tests), prefix


def test_a_prefix_chooses_whole_names_only() -> None:
    assert suites.chosen("a.py::test_a::test_b[1]", ["a.py::test_a::test_b"])
    assert suites.chosen("a.py::test_a::test_b[1]", ["a.py"])
    assert not suites.chosen("a.py::test_a::test_by", ["a.py::test_a::test_b"])
