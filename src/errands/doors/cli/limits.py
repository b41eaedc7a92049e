"""`errands limits`: what holds now, and changing it while workers run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from errands.doors.cli.admin import ReasonOption, errands_app, me, told
from errands.doors.cli.commands import AppOption

limits = typer.Typer(help="Limits of tasks: what holds, who waits; change, reset.")

Name = Annotated[str, typer.Argument(help="Of the task, or of the limit.")]


@limits.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    app: AppOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of lines.")] = False,
) -> None:
    """List all limits: what holds, what the code says if that is something else, and how many runs wait."""
    if context.invoked_subcommand is not None:
        return
    found = _asked(app, lambda ops, who: ops.all(who))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for limit in found:
        by = f" by {limit['by']}" if limit["by"] else ""
        declared = f" (the code says {limit['declared']})" if limit["changed"] else ""
        waiting = f", {limit['waiting']} waiting" if limit["waiting"] else ""
        typer.echo(f"{limit['name']}: {limit['now']}{by}{declared}{waiting}")


@limits.command()
def change(
    name: Name,
    to: Annotated[str, typer.Argument(help="50/m, 30/10s; or how many at once: 3.")],
    app: AppOption = "",
    reason: ReasonOption = None,
) -> None:
    """Change a limit for all workers at once, until it is reset."""
    done = _asked(app, lambda ops, who: ops.change(who, name, to, reason=reason))
    typer.echo(f"{name}: {done['now']}.")


@limits.command()
def reset(name: Name, app: AppOption = "", reason: ReasonOption = None) -> None:
    """Let what the code says hold again."""
    _asked(app, lambda ops, who: ops.reset(who, name, reason=reason))
    typer.echo(f"{name} is what the code says.")


def _asked(app: str, question: Callable[[Any, Any], Any]) -> Any:
    from errands.ops.limits import LimitOps

    return told(lambda: question(LimitOps(errands_app(app)), me()))
