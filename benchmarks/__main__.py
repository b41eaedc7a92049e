"""`python -m benchmarks`: measure, print, keep."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import course, picture, report
from benchmarks.contender import BenchmarkError, Contender, load, names
from benchmarks.stand import server_version
from benchmarks.work import WORKLOADS, Workload

RESULTS = Path(__file__).parent / "results"
QUICK_TASKS = 1_000
WIDTH = 130  # of the table where there is no terminal to ask


def main(
    tasks: Annotated[int, typer.Option(min=20, help="Tasks of each kind (of slow ones a tenth).")] = 5_000,
    quick: Annotated[bool, typer.Option("--quick", help=f"{QUICK_TASKS:,} tasks.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each system goes through all of it.")] = 3,
    probes: Annotated[int, typer.Option(min=1, help="Tasks sent to an idle worker, one by one.")] = 100,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Measure this one only; repeatable, in any order.")
    ] = None,
    work: Annotated[
        list[str] | None,
        typer.Option("--work", help=f"This kind of task only; repeatable: {', '.join(WORKLOADS)}."),
    ] = None,
    results: Annotated[Path, typer.Option(help="The folder for results.")] = RESULTS,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep it as the repository's result, latest.*")
    ] = False,
) -> None:
    """Measure Errands beside stock Celery doing the same work on the same machine, turn by turn."""
    _end_in_order()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    # In the table's order; loading what was asked for tells of a name that does not exist.
    chosen = dict(sorted(((name, load(name)) for name in only or names()), key=lambda item: item[1].order))
    if unknown := sorted(set(work or ()) - set(WORKLOADS)):
        raise BenchmarkError(f"no kind of task is called {unknown[0]!r}; there are: {', '.join(WORKLOADS)}")
    works = [WORKLOADS[name] for name in work or WORKLOADS]
    result = _measure(chosen, QUICK_TASKS if quick else tasks, rounds, probes, works, console)
    report.show(result, console)
    console.print(f"Written: {_write(result, results, keep=keep)}", soft_wrap=True)


def _measure(
    chosen: dict[str, Contender],
    tasks: int,
    rounds: int,
    probes: int,
    works: Sequence[Workload],
    console: Console,
) -> report.Result:
    result = report.Result(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        tasks=tasks,
        processes=course.PROCESSES,
        machine=report.machine(list(chosen.values()), server_version()),
        contenders={
            name: {"label": contender.label, "setup": contender.setup} for name, contender in chosen.items()
        },
        rounds={name: [] for name in chosen},
    )
    with console.status("") as status:
        for turn in range(rounds):
            # Whoever goes first finds the machine coolest and its caches coldest: each has that turn.
            order = list(chosen)[turn % len(chosen) :] + list(chosen)[: turn % len(chosen)]
            for name in order:
                status.update(f"Round {turn + 1} of {rounds}: {chosen[name].label}")
                result.rounds[name].append(course.run(name, chosen[name], tasks, probes, works))
    return result


def _write(result: report.Result, folder: Path, *, keep: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem = result.at[:19].replace(":", "")
    text = json.dumps(result.to_json(), indent=1) + "\n"
    for name in (stem, "latest") if keep else (stem,):
        (folder / f"{name}.json").write_text(text)
        (folder / f"{name}.svg").write_text(picture.draw(result))
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
