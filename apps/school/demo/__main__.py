"""`python -m school.demo [--json]`: exit status 0 when every step did what it should."""

from __future__ import annotations

import io
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from school.demo.client import DemoError, School
from school.demo.story import Story


@dataclass
class Step:
    """One row of the table."""

    title: str
    state: str = "waiting"  # waiting, running, done, failed
    told: str = ""
    seconds: float = 0.0


def draw(steps: list[Step]) -> Table:
    """The table as it stands now."""
    table = Table(title="From registration to certificate", title_justify="left", expand=False)
    table.add_column("", width=2)
    table.add_column("Step", no_wrap=True)
    table.add_column("What happened", overflow="fold")
    table.add_column("Took", justify="right", no_wrap=True)
    marks = {"waiting": "[dim]·[/]", "done": "[green]✓[/]", "failed": "[red]✗[/]"}
    for step in steps:
        mark = Spinner("dots") if step.state == "running" else marks[step.state]
        took = f"{step.seconds * 1000:.0f} ms" if step.state in ("done", "failed") else ""
        style = {"waiting": "dim", "failed": "red"}.get(step.state)
        table.add_row(mark, step.title, step.told, took, style=style)
    return table


def walk(story: Story, steps: list[Step], refresh: object) -> bool:
    """Take the steps; True when all of them worked."""
    for step, (_, act) in zip(steps, story.steps(), strict=True):
        step.state, begun = "running", time.perf_counter()

        def tell(text: str, step: Step = step) -> None:
            step.told = text
            _refresh(refresh, steps)

        story.tell = tell
        _refresh(refresh, steps)
        try:
            step.told, step.state = act(), "done"
        except (DemoError, httpx.HTTPError) as exc:
            step.told, step.state = str(exc), "failed"
        step.seconds = time.perf_counter() - begun
        _refresh(refresh, steps)
        if step.state == "failed":
            return False
    return True


def _refresh(live: object, steps: list[Step]) -> None:
    if isinstance(live, Live):
        live.update(draw(steps), refresh=True)


def keep(table: Table, path: Path) -> None:
    """Write the table as an SVG picture."""
    recorder = Console(record=True, width=104, file=io.StringIO())
    recorder.print(table)
    recorder.save_svg(str(path), title="make demo")


def main(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead of a table")] = False,
    picture: Annotated[Path | None, typer.Option(help="keep the end as an SVG picture in this file")] = None,
) -> None:
    """Walk the main job against the running school, and tell what happened."""
    console = Console(stderr=as_json)
    try:
        with School() as school:
            story = Story(school, tell=lambda text: None)
            steps = [Step(title) for title, _ in story.steps()]
            begun = time.perf_counter()
            if as_json:
                worked = walk(story, steps, None)
                seconds = round(time.perf_counter() - begun, 3)
                answer = {"ok": worked, "seconds": seconds, "steps": [asdict(step) for step in steps]}
                sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")
            else:
                with Live(draw(steps), console=console, auto_refresh=True) as live:
                    worked = walk(story, steps, live)
                if picture is not None:
                    keep(draw(steps), picture)
                if worked:
                    console.print(
                        f"All of it took [bold]{time.perf_counter() - begun:.1f} s[/]. "
                        f"Mail: {school.access['mail_url']}  Webhooks: {school.access['webhooks_url']}"
                    )
    except DemoError as exc:
        console.print(f"[red]demo: {exc}[/]")
        raise SystemExit(1) from exc
    raise SystemExit(0 if worked else 1)


if __name__ == "__main__":
    typer.run(main)
