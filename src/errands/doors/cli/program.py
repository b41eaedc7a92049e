"""The commands and their groups, as Typer reads them."""

from __future__ import annotations

import typer

from errands.doors.cli import commands, records
from errands.doors.cli.limits import limits
from errands.doors.cli.schedules import schedules

cli = typer.Typer(
    name="errands",
    help="Background work for web applications, on Celery.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
database = typer.Typer(help="The database that Errands keeps its records in.", no_args_is_help=True)
keys = typer.Typer(help="The keys that seal secret arguments and sign messages.", no_args_is_help=True)
letters = typer.Typer(help="What nobody tries again by itself.", no_args_is_help=True)
people = typer.Typer(help="What is kept of people.", no_args_is_help=True)

cli.command()(commands.up)
cli.command()(commands.worker)
cli.command()(commands.beat)
cli.command()(commands.doctor)
cli.add_typer(database, name="db")
cli.add_typer(keys, name="keys")
cli.add_typer(schedules, name="schedules")
cli.add_typer(limits, name="limits")
cli.add_typer(letters, name="dead-letters")
cli.add_typer(people, name="people")
cli.command()(commands.version)
letters.command("list")(records.show)
letters.command("replay")(records.replay)
letters.command("delete")(records.delete)
people.command("erase")(records.erase)
database.command("upgrade")(commands.upgrade)
keys.command("new")(commands.new_key)


@database.callback()
def _database() -> None: ...


@keys.callback()
def _keys() -> None: ...


@people.callback()
def _people() -> None: ...
