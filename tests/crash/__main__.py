"""`python -m tests.crash`: put every fault to Errands and to stock Celery, and print what came of it."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from tests.crash import report, soak
from tests.crash.faults import FAULTS
from tests.crash.scenario import Fault, Row, play
from tests.crash.stack import Stack
from tests.crash.systems import SYSTEMS

_WIDTH = 150  # of the table where there is no terminal to ask
# Stock Celery gives nothing back before its visibility timeout and the period of its sweep have passed.
_PATIENCE = {"celery": 150.0}


def main(
    system: Annotated[
        list[str] | None, typer.Option(help=f"This one only; repeatable: {', '.join(SYSTEMS)}.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Faults with this in their name.")] = None,
    scale: Annotated[float, typer.Option(min=0.1, help="Runs, as a multiple of the short form's.")] = 2.0,
    repeats: Annotated[int, typer.Option(min=1, help="How often each fault is played.")] = 1,
    long: Annotated[float, typer.Option(min=0, help="Minutes of mixed faults instead.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Of the mixture; printed, to play it again.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Write results/latest.json.")] = False,
) -> None:
    """Put faults to real processes and servers; exit status 1 if Errands broke a promise."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    if unknown := sorted(set(system or ()) - set(SYSTEMS)):
        raise typer.BadParameter(f"no system is called {unknown[0]!r}; there are: {', '.join(SYSTEMS)}")
    names = system or (["asyncio"] if long else list(SYSTEMS))
    chosen = [fault for fault in FAULTS if not only or any(word in fault.name for word in only)]
    if long:
        rows, told = soak.run(names[0], long, seed, console)
    else:
        rows, told = _each(names, chosen, scale, repeats, console), {}
    report.show(rows, console)
    for line in told.get("violations", ()):
        console.print(f"[red]{line}[/]", highlight=False)
    if keep:
        console.print(f"Written: {report.keep(rows, told)}", soft_wrap=True)
    ours = [row for row in rows if row.system.startswith("Errands")]
    if any(row.violations for row in ours) or told.get("violations"):
        raise typer.Exit(1)


def _each(
    names: Sequence[str], faults: Sequence[Fault], scale: float, repeats: int, console: Console
) -> list[Row]:
    rows: list[Row] = []
    for fault in faults:
        for name in names:
            if fault.systems and name not in fault.systems:
                continue
            for _ in range(repeats):
                began = time.monotonic()
                rows.append(alone(name, fault, scale))
                broken = rows[-1].violations
                console.print(
                    f"{rows[-1].system}: {fault.name}: {'; '.join(broken) or 'held'} "
                    f"({time.monotonic() - began:.0f} s)",
                    style="red" if broken else "",
                    highlight=False,
                )
    return rows


def alone(name: str, fault: Fault, scale: float) -> Row:
    """Play one fault on a stack of its own. Its folder stays where a promise was broken."""
    folder = Path(tempfile.mkdtemp(prefix="errands-crash-"))
    made: Any = SYSTEMS[name]
    with Stack(folder, made) as stack:
        row = play(stack, fault, scale=scale, patience=_PATIENCE.get(name))
    if not row.violations:
        shutil.rmtree(folder, ignore_errors=True)
    return row


if __name__ == "__main__":
    typer.run(main)
