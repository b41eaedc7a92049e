"""`python -m school.demo [--json]`: exit status 0 when every step did what it should."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.live import Live

from school.demo.certificate import Certificate
from school.demo.chapter import Chapter
from school.demo.client import DemoError, School
from school.demo.screen import Step, draw, keep
from school.demo.services import Services


def walk(chapter: Chapter, steps: list[Step], refresh: Callable[[], None]) -> bool:
    """Take the steps of a chapter; True when all of them worked. Those after one that failed stay untaken."""
    for step, (_, act) in zip(steps, chapter.steps(), strict=True):
        step.state, begun = "running", time.perf_counter()

        def tell(text: str, done: float | None = None, total: float | None = None, step: Step = step) -> None:
            step.told, step.done, step.total = text, done or 0, total
            refresh()

        chapter.tell = tell
        refresh()
        try:
            step.told, step.state = act(), "done"
        except (DemoError, httpx.HTTPError) as exc:
            step.told, step.state = str(exc) or type(exc).__name__, "failed"
        step.seconds = time.perf_counter() - begun
        refresh()
        if step.state == "failed":
            return False
    return True


@contextmanager
def shown(console: Console | None, title: str, steps: list[Step]) -> Iterator[Callable[[], None]]:
    """A live table of these steps; gives what draws it anew. Without a console nothing is shown."""
    if console is None:
        yield lambda: None
        return
    with Live(draw(title, steps), console=console, refresh_per_second=10) as live:
        yield lambda: live.update(draw(title, steps), refresh=True)
    if not console.is_terminal:
        console.print()  # on a terminal the table ends its line itself


def main(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")] = False,
    picture: Annotated[Path | None, typer.Option(help="keep the end as an SVG picture in this file")] = None,
) -> None:
    """Walk the main job and the other services of the running school, and tell what happened."""
    console = Console(stderr=as_json)
    begun, worked = time.perf_counter(), True
    try:
        with School() as school:
            first = Certificate(school)
            second = Services(first)
            taken: list[tuple[Chapter, list[Step]]] = [
                (chapter, [Step(title) for title, _ in chapter.steps()]) for chapter in (first, second)
            ]
            for chapter, steps in taken:
                if worked:
                    with shown(None if as_json else console, chapter.title, steps) as refresh:
                        worked = walk(chapter, steps, refresh)
            seconds = time.perf_counter() - begun
    except DemoError as exc:
        console.print(f"[red]demo: {exc}[/]")
        raise SystemExit(1) from exc
    if as_json:
        told = [step.as_dict(chapter.title) for chapter, steps in taken for step in steps]
        answer = {"ok": worked, "seconds": round(seconds, 3), "steps": told}
        sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")
    elif worked:
        console.print(f"All of it took [bold]{seconds:.1f} s[/]. What it sent can be looked at:")
        console.print(f"  mails     {school.access['mail_url']}")
        console.print(f"  messages  {school.access['messages_url']}")
        console.print(f"  webhooks  {school.access['webhooks_url']}")
        console.print(f"  the progress page of the messages  {second.progress_url}", soft_wrap=True)
    if picture is not None:
        keep([draw(chapter.title, steps) for chapter, steps in taken], picture)
    raise SystemExit(0 if worked else 1)


if __name__ == "__main__":
    typer.run(main)
