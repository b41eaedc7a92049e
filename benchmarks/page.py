"""A result as a page of Markdown: every figure, the targets, who was set up how."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import GROUPS, Measure
from benchmarks.report import Result, number, versions_of, where
from benchmarks.targets import judge


def write(result: Result, image: str) -> str:
    """The page.

    Args:
        result: what was measured.
        image: the file name of its picture, in the same folder.
    """
    rounds = max((len(found) for found in result.rounds.values()), default=0)
    lines = [
        f"# Benchmark of {result.at[:10]}",
        "",
        f"{where(result)}. {result.sizes['tasks']:,.0f} tasks for the fast ones, rounds: {rounds}. Medians, "
        "and the least and the most in brackets. What each figure means: docs/benchmarks.md.",
        "",
        f"![Errands beside its peers]({image})",
        *_targets(result),
    ]
    for title, group in GROUPS.items():
        measured = [measure for measure in group if _names(result, measure)]
        if measured:
            lines += ["", f"## {title.capitalize()}", *_table(result, measured)]
    lines += ["", "## Who, and how set up", "", "| | best | for tasks that wait | as it comes | versions |"]
    lines += ["|---|---|---|---|---|"]
    for told in result.contenders.values():
        settings = [told["settings"].get(name, "") for name in ("best", "waiting", "default")]
        lines.append(f"| {told['label']} | {' | '.join(settings)} | {versions_of(told)} |")
    lines += [f"\nLeft out: {name}: {why}" for name, why in result.left_out.items()]
    return "\n".join(lines) + "\n"


def _targets(result: Result) -> Iterator[str]:
    verdicts = judge(result)
    if not verdicts:
        return
    yield from ("", "## Targets", "", "| | found | |", "|---|---|---|")
    for verdict in verdicts:
        dream = ", and what was dreamt of" if verdict.dream else ""
        said = "not measured" if verdict.reached is None else "missed" if not verdict.reached else "reached"
        yield f"| {verdict.label} | {verdict.found} | {said}{dream} |"


def _table(result: Result, measures: list[Measure]) -> Iterator[str]:
    yield from ("", "| | " + " | ".join(f"{each.label}, {each.unit}" for each in measures) + " |")
    yield "|---|" + "--:|" * len(measures)
    for name, told in result.contenders.items():
        cells = [_cell(result, name, measure.key) for measure in measures]
        if any(cells):
            yield f"| {told['label']} | {' | '.join(cells)} |"


def _cell(result: Result, name: str, key: str) -> str:
    found = result.summary(name, key)
    if found is None:
        return ""
    text, least, most = number(found.median), number(found.least), number(found.most)
    return text if least == most else f"{text} ({least}–{most})"


def _names(result: Result, measure: Measure) -> list[str]:
    return [name for name in result.rounds if result.summary(name, measure.key) is not None]
