"""What the outside checks print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs import Job, Outcome
from verdict import Allowed, Verdict

_TAIL = 25


def heading(versions: Mapping[str, str]) -> str:
    """Versions of all that takes part."""
    return "Outside checks: " + ", ".join(f"{name} {number}" for name, number in versions.items())


def table(rows: Sequence[tuple[str, Verdict, Sequence[Job]]]) -> str:
    """A line for each arrangement."""
    columns = (
        "arrangement",
        "tests",
        "passed",
        "as stock",
        "allowed",
        "different",
        "stale",
        "not run",
        "flaky",
        "s",
    )
    lines = [columns]
    for name, verdict, jobs in rows:
        kinds = ("passed", "as_stock", "allowed", "different", "stale", "not_run")
        lists = [getattr(verdict, kind) for kind in kinds]
        tests = sum(map(len, lists)) - len(verdict.not_run)
        flaky = sum(len(job.flaky) for job in jobs)
        seconds = sum(job.seconds for job in jobs)
        lines.append((name, str(tests), *(str(len(one)) for one in lists), str(flaky), f"{seconds:.0f}"))
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip


def problems(name: str, verdict: Verdict, outcomes: Mapping[str, Outcome]) -> list[str]:
    """What makes an arrangement fail, each with what to do about it."""
    texts = []
    for test in verdict.different:
        outcome = outcomes[test]
        error = "\n".join("    " + line for line in outcome.error.strip().splitlines()[-_TAIL:])
        texts.append(f"{name}: {test}: {outcome.what}, and not so on stock.\n{error}".rstrip())
    texts += [
        f"{name}: {test}: no longer worse than stock; take it out of allowed.toml." for test in verdict.stale
    ]
    texts += [
        f"{name}: {test}: ran on stock, not here; if it is gone, keep stock's anew (ARGS=--stock)."
        for test in verdict.not_run
    ]
    return texts


def differences(name: str, verdict: Verdict, allowed: Sequence[Allowed]) -> list[str]:
    """The allowed differences that showed themselves, by reason."""
    lines = []
    for entry in allowed:
        shown = [test for test in entry.tests if name in entry.arrangements and test in verdict.allowed]
        if shown:
            lines.append(f"{name}: {len(shown)} allowed: {entry.reason}")
    return lines
