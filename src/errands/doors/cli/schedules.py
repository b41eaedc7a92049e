"""`errands schedules`: what is due next, and what became of what was due."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Annotated, Any

import typer

from errands.core.errors import ErrandsError
from errands.doors.local.errors import LocalRunError

schedules = typer.Typer(help="Schedules: their next due times; pause, resume, run now.")

AppOption = Annotated[
    str, typer.Option("--app", "-A", envvar="ERRANDS_APP", help="The application, as MODULE:NAME.")
]
Name = Annotated[str, typer.Argument(help="The schedule's name.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="For the audit trail.")]


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
    from errands.app import Errands
    from errands.doors.cli.application import load_app
    from errands.doors.cli.commands import NO_APP
    from errands.ops.access import ADMIN, Person
    from errands.ops.schedules import Schedules

    if not app:
        raise LocalRunError(NO_APP)
    application = load_app(app)
    if not isinstance(application, Errands):
        raise LocalRunError(
            f"{app} is a plain Celery application; schedules are those of Errands applications."
        )
    # Whoever can start programs with the application's settings can do anything to it.
    who = Person(f"cli:{getpass.getuser()}", frozenset({ADMIN}))
    try:
        return ask(Schedules(application), who)
    except ErrandsError as exc:
        raise LocalRunError(str(exc)) from exc
