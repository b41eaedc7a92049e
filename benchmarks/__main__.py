"""`python -m benchmarks`: measure, print, keep."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import course, environments, page, picture, report
from benchmarks.contender import COMMANDS, MEASURES, BenchmarkError, Contender, NotThere, load, names
from benchmarks.course import Sizes
from benchmarks.stand import server_version

RESULTS = Path(__file__).parent / "results"
FULL = Sizes(tasks=20_000, sleepers=3_000, seconds=2.0, probes=150, counted=1_000)
QUICK = Sizes(tasks=2_000, sleepers=600, seconds=0.5, probes=30, counted=500)
WIDTH = 160  # of the table where there is no terminal to ask


def main(
    tasks: Annotated[int, typer.Option(min=0, help="Empty tasks for the fast ones; 0: as many as fit.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A little of everything, one round.")] = False,
    rounds: Annotated[int, typer.Option(min=0, help="How often each goes through all of it; 0: 3.")] = 0,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Measure this one only; repeatable, in any order.")
    ] = None,
    measure: Annotated[
        list[str] | None, typer.Option("--measure", help=f"This only; repeatable: {', '.join(MEASURES)}.")
    ] = None,
    results: Annotated[Path, typer.Option(help="The folder for results.")] = RESULTS,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep it as the repository's result, latest.*")
    ] = False,
) -> None:
    """Measure Errands beside its peers doing the same work on the same machine, turn by turn."""
    _end_in_order()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    # In the tables' order; loading what was asked for tells of a name that does not exist.
    chosen = dict(sorted(((name, load(name)) for name in only or names()), key=lambda item: item[1].order))
    if unknown := sorted(set(measure or ()) - set(MEASURES)):
        raise BenchmarkError(f"no measure is called {unknown[0]!r}; there are: {', '.join(MEASURES)}")
    sizes = QUICK if quick else FULL
    if tasks:
        sizes = Sizes(**{**asdict(sizes), "tasks": tasks, "sleepers": max(50, tasks // 5)})
    result = _measure(chosen, sizes, rounds or (1 if quick else 3), tuple(measure or MEASURES), console)
    report.show(result, console)
    console.print(f"Written: {_write(result, results, keep=keep)}", soft_wrap=True)


def _measure(
    chosen: dict[str, Contender], sizes: Sizes, rounds: int, measures: tuple[str, ...], console: Console
) -> report.Result:
    result = report.Result(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        sizes=asdict(sizes),
        machine=report.machine(server_version()),
        contenders={},
    )
    for name, contender in chosen.items():
        try:
            result.contenders[name] = _about(contender, measures)
            result.rounds[name] = []
        except NotThere as absent:
            _leave_out(result, name, contender, absent)
    with console.status("") as status:
        for turn in range(rounds):
            # What a task asks of the server is counted, not timed: once is enough.
            now = measures if turn == 0 else tuple(each for each in measures if each != COMMANDS)
            # Whoever goes first finds the machine coolest and its caches coldest: each has that turn.
            order = list(result.rounds)
            start = turn * len(order) // rounds if order else 0
            for name in order[start:] + order[:start]:
                status.update(f"Round {turn + 1} of {rounds}: {chosen[name].label}")
                try:
                    result.rounds[name].append(course.run(chosen[name], sizes, now))
                except BenchmarkError as error:
                    if chosen[name].ours:
                        raise
                    _leave_out(result, name, chosen[name], error)
    return result


def _about(contender: Contender, measures: tuple[str, ...]) -> dict[str, Any]:
    settings = {"best": contender.best, "waiting": contender.waiting, "default": contender.default}
    return {
        "label": contender.label,
        "keeps": contender.keeps,
        "settings": {name: setting.note for name, setting in settings.items() if setting is not None},
        "measures": [each for each in contender.measures if each in measures],
        "versions": environments.versions(contender.environment, *contender.packages),
    }


def _leave_out(result: report.Result, name: str, contender: Contender, why: Exception) -> None:
    result.rounds.pop(name, None)
    result.contenders.pop(name, None)
    result.left_out[name] = str(why)
    print(f"benchmarks: {contender.label} is left out: {why}", file=sys.stderr)


def _write(result: report.Result, folder: Path, *, keep: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = result.at[:19].replace(":", "")
    text = json.dumps(result.to_json(), indent=1) + "\n"
    for name in (stem, "latest") if keep else (stem,):
        (folder / f"{name}.json").write_text(text)
        (folder / f"{name}.svg").write_text(picture.draw(result))
        (folder / f"{name}.md").write_text(page.write(result, f"{name}.svg"))
    return folder / f"{stem}.json"


def _end_in_order() -> None:
    """SIGTERM unwinds like Ctrl-C, so that servers and workers are stopped."""

    def leave(*_: Any) -> None:
        sys.exit(143)

    signal.signal(signal.SIGTERM, leave)


if __name__ == "__main__":
    try:
        typer.run(main)
    except BenchmarkError as error:
        sys.exit(f"benchmarks: {error}")
