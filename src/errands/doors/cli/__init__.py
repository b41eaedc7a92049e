"""The command line: `errands up`, `worker`, `beat`, `doctor`, `db upgrade`, `keys new`, `version`."""

from __future__ import annotations

import sys

import typer

from errands.core.errors import ConfigurationError
from errands.doors.cli import commands
from errands.doors.local.errors import LocalRunError

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


def main() -> None:
    """The entry point: what a user can mend is told in one line, without a traceback."""
    try:
        cli()
    except (LocalRunError, ConfigurationError) as error:
        sys.exit(f"errands: {error}")
