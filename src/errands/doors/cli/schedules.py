"""`errands schedules`: what is due next, and what became of what was due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from errands.doors.cli.admin import ReasonOption, errands_app, me, told
from errands.doors.cli.commands import AppOption

schedules = typer.Typer(help="Schedules: their next due times; pause, resume, run now.")

Name = Annotated[str, typer.Argument(help="The schedule's name.")]


@schedules.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    app: AppOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of lines.")] = False,
) -> None:
    """List all schedules with their next five due times."""
    if context.invoked_subcommand is not None:
        return
    import json

    from rich.console import Console
    from rich.markup import escape

    found = _asked(app, lambda ops, who: ops.all(who))
    if as_json:
        typer.echo(json.dumps(found, indent=2, default=str))
        return
    console = Console(highlight=False, soft_wrap=True)
    for view in found:
        console.print(f"[bold]{escape(view['name'])}[/]{'  [yellow]paused[/]' if view['paused'] else ''}")
        if "problem" in view:
            console.print(f"  [red]sends nothing:[/] {escape(view['problem'])}")
            continue
        console.print(f"  {escape(view['rule'])} → {escape(view['task'])} ({view['origin']})")
        console.print(f"  next: {', '.join(view['next']) or 'never'}")
        if view["last"] is not None:
            console.print(f"  last: {escape(_line(view['last']))}")


@schedules.command()
def pause(name: Name, app: AppOption = "", reason: ReasonOption = None) -> None:
    """Let nothing be sent until it is resumed."""
    _asked(app, lambda ops, who: ops.pause(who, name, reason=reason))
    typer.echo(f"{name} is paused.")


@schedules.command()
def resume(name: Name, app: AppOption = "", reason: ReasonOption = None) -> None:
    """Go on with the due times that come."""
    _asked(app, lambda ops, who: ops.resume(who, name, reason=reason))
    typer.echo(f"{name} goes on.")


@schedules.command()
def run(name: Name, app: AppOption = "", reason: ReasonOption = None) -> None:
    """Send a run now, beside the due times."""
    typer.echo(_asked(app, lambda ops, who: ops.run(who, name, reason=reason))["task_id"])


def _line(last: dict[str, Any]) -> str:
    parts = [f"{last['outcome']} for {last['due']}"]
    if last["outcome"] == "sent":
        parts.append(f"{last['late_s']:g} s late")
        parts.append(f"run {last['task_id']} {last['state'] or 'is not known any more'}")
    if last["reason"]:
        parts.append(last["reason"])
    return ", ".join(parts)


def _asked(app: str, ask: Callable[[Any, Any], Any]) -> Any:
    from errands.ops.schedules import Schedules

    return told(lambda: ask(Schedules(errands_app(app)), me()))
