"""What our outcomes mean beside stock's and the list of allowed differences. Nothing here runs anything."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PASSED = "passed"
# A test that may fail (xfail) and does not is no better than one that does: it says nothing.
_BADNESS = {PASSED: 0, "xpassed": 1, "xfailed": 1, "skipped": 1, "failed": 2, "no outcome": 2}


@dataclass(frozen=True, slots=True)
class Allowed:
    """A difference that is meant: in which arrangements, which tests, and why.

    `sometimes`: the tests race with us, so that passing makes no entry stale.
    """

    reason: str
    arrangements: tuple[str, ...]
    tests: tuple[str, ...]
    sometimes: bool = False


@dataclass(slots=True)
class Verdict:
    """One arrangement's tests, each in one of these lists; the last three fail the checks."""

    passed: list[str] = field(default_factory=list)
    as_stock: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.different or self.stale or self.not_run)


def read_allowed(text: str, arrangements: Iterable[str]) -> list[Allowed]:
    """The entries of `allowed.toml`; ValueError for one that could never apply or says no reason."""
    known = set(arrangements)
    entries = []
    for number, entry in enumerate(tomllib.loads(text).get("difference", []), 1):
        reason = " ".join(entry.get("reason", "").split())
        found = Allowed(
            reason,
            tuple(entry.get("arrangements", ())),
            tuple(entry.get("tests", ())),
            bool(entry.get("sometimes", False)),
        )
        if not (reason and found.arrangements and found.tests):
            raise ValueError(f"allowed.toml: difference {number} needs a reason, arrangements and tests.")
        if unknown := set(found.arrangements) - known:
            raise ValueError(
                f"allowed.toml: difference {number} names unknown arrangements: {sorted(unknown)}."
            )
        if twice := {test for other in entries for test in other.tests if _both(found, other, test)}:
            raise ValueError(f"allowed.toml: difference {number} names again: {sorted(twice)}.")
        entries.append(found)
    return entries


def differs(ours: str, stock: str | None) -> bool:
    """Whether an outcome is worse than stock's. A test that stock does not have must pass."""
    return _BADNESS[ours] > _BADNESS[stock or PASSED]


def judge(
    ours: Mapping[str, str], stock: Mapping[str, str], allowed: Iterable[Allowed], arrangement: str
) -> Verdict:
    """Compare outcomes by test id.

    `ours` and `stock` hold the chosen part alone. An allowed difference that is none is stale: it passes,
    or it does not pass on stock either.
    """
    excused = {test: entry for entry in allowed if arrangement in entry.arrangements for test in entry.tests}
    verdict = Verdict()
    for test, outcome in ours.items():
        if differs(outcome, stock.get(test)):
            (verdict.allowed if test in excused else verdict.different).append(test)
        elif test in excused and not excused[test].sometimes:
            verdict.stale.append(test)
        else:
            (verdict.passed if outcome == PASSED else verdict.as_stock).append(test)
    verdict.not_run = [test for test in stock if test not in ours]
    return verdict


def unknown(allowed: Iterable[Allowed], arrangement: str, tests: Iterable[str]) -> list[str]:
    """Tests that the list excuses in an arrangement and that do not exist there."""
    known = set(tests)
    return sorted(
        test
        for entry in allowed
        if arrangement in entry.arrangements
        for test in entry.tests
        if test not in known
    )


def _both(one: Allowed, other: Allowed, test: str) -> bool:
    return test in one.tests and bool(set(one.arrangements) & set(other.arrangements))
