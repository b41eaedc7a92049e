"""The demo as people see it: a table a chapter, with a bar where something is at work."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_BAR = 32
_MARKS: dict[str, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
}


@dataclass
class Step:
    """One row of the table. `done` of `total` is how far it is while it runs."""

    title: str
    state: str = "waiting"  # waiting, running, done, failed
    told: str = ""
    seconds: float = 0.0
    done: float = 0.0
    total: float | None = None
    spinner: Spinner = field(default_factory=lambda: Spinner("dots"))

    def as_dict(self, chapter: str) -> dict[str, Any]:
        """As `--json` tells it."""
        return {
            "chapter": chapter, "title": self.title, "state": self.state, "told": self.told,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip

    def as_row(self) -> list[RenderableType]:
        """Its cells: mark, title, what happened, seconds."""
        over = self.state in ("done", "failed")
        style = {"waiting": "dim", "failed": "red"}.get(self.state, "")
        mark = self.spinner if self.state == "running" else Text(*_MARKS[self.state])
        told: RenderableType = Text(self.told, style, overflow="fold")
        if self.state == "running" and self.total:
            bar = ProgressBar(total=self.total, completed=self.done, width=_BAR)
            count = Text(f"{self.done:,.0f} of {self.total:,.0f}  {self.told}")
            told = Table.grid(padding=(0, 1))
            told.add_row(bar, count)
        took = Text(f"{self.seconds * 1000:,.0f} ms" if over else "", style)
        return [mark, Text(self.title, style), told, took]


def draw(title: str, steps: Sequence[Step]) -> Table:
    """A chapter as it stands now."""
    table = Table(title=title, title_justify="left", expand=False)
    table.add_column("", width=2)
    table.add_column("Step", no_wrap=True)
    table.add_column("What happened", overflow="fold", min_width=_BAR)
    table.add_column("Took", justify="right", no_wrap=True)
    for step in steps:
        table.add_row(*step.as_row())
    return table


def keep(tables: Sequence[Table], path: Path) -> None:
    """Write tables as an SVG picture, one below the other."""
    recorder = Console(record=True, width=110, file=io.StringIO())
    recorder.print(Group(*tables))
    recorder.save_svg(str(path), title="make demo")
