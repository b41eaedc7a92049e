"""The commands and their groups, as Typer reads them."""

from __future__ import annotations

import typer

from errands.doors.cli import commands

cli = typer.Typer(
    name="errands",
    help="Background work for web applications, on Celery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
database = typer.Typer(help="The database that Errands keeps its records in.", no_args_is_help=True)
keys = typer.Typer(help="The keys that seal secret arguments.", no_args_is_help=True)

cli.command()(commands.up)
cli.command()(commands.worker)
cli.command()(commands.beat)
cli.command()(commands.doctor)
cli.add_typer(database, name="db")
cli.add_typer(keys, name="keys")
cli.command()(commands.version)
database.command("upgrade")(commands.upgrade)
keys.command("new")(commands.new_key)


@database.callback()
def _database() -> None: ...


@keys.callback()
def _keys() -> None: ...
