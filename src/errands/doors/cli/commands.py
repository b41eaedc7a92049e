"""What each command does. Imports are made where they are needed, so that each command starts quickly."""

from __future__ import annotations

import os
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from errands.doors.local.errors import LocalRunError

NO_APP = "Which application? Give --app MODULE:NAME or set ERRANDS_APP (for instance myproject.tasks:app)."

AppOption = Annotated[
    str, typer.Option("--app", "-A", envvar="ERRANDS_APP", help="The application, as MODULE:NAME.")
]


class LogLevel(StrEnum):
    """What is logged: this and whatever is graver."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"


LogLevelOption = Annotated[
    LogLevel | None,
    typer.Option(
        "--loglevel", "-l", case_sensitive=False, help="Default: ERRANDS_LOG_LEVEL, as the settings have it."
    ),
]


def up(
    app: AppOption = "",
    web: Annotated[
        str | None, typer.Option(help="The web application (ASGI), as MODULE:NAME; default: run endpoints.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Called before each start, as MODULE:FUNCTION: makes first data.")
    ] = None,
    home: Annotated[
        Path, typer.Option(envvar="ERRANDS_HOME", help="The folder that keeps everything.")
    ] = Path(".errands"),
    port: Annotated[
        str, typer.Option(envvar="PORT", help="The web server's port on 127.0.0.1; 0: any free one.")
    ] = "8000",
    worker: Annotated[
        list[str] | None,
        typer.Option(help="NAME=queue,queue:CONCURRENCY, repeatable; the queue * is all the others."),
    ] = None,
) -> None:
    """Start everything that the application needs on this machine; Ctrl-C ends it."""
    from errands.doors.local.ports import parse_port
    from errands.doors.local.run import Options, up
    from errands.doors.local.workers import parse_worker

    workers = [parse_worker(text) for text in worker or ()]
    up(Options(required(app), web, seed, home, parse_port(port), workers))


def worker(
    app: AppOption = "",
    queues: Annotated[str, typer.Option("--queues", "-Q", help="Comma list; default: all.")] = "",
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=0, help="Tasks at a time; 0: 100, or one for each core.")
    ] = 0,
    pool: Annotated[
        str, typer.Option("--pool", "-P", help="asyncio, prefork, threads or solo; default: by the queues.")
    ] = "",
    processes: Annotated[int, typer.Option(min=1, help="Worker processes to start.")] = 1,
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the worker on its host.")] = "worker",
    log_level: LogLevelOption = None,
) -> None:
    """Run a worker for some queues; a queue that no task uses is refused by name."""
    # Celery's warm shutdown waits for running tasks without end. With this, TERM gives them
    # `ERRANDS_SHUTDOWN_TIMEOUT` seconds, and what is not done by then goes back to its queue at once.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    from celery.platforms import SecurityWarning
    from celery.signals import worker_ready

    from errands.doors.cli.application import declared_queues, load_app, local_run
    from errands.doors.cli.application import log_level as level_for
    from errands.doors.cli.workers import POOLS, become_supervisor, choose_pool, end_with_parent, run_worker

    if local_run():
        # Five lines on root's rights from each worker, to somebody who tries things out in a container.
        warnings.simplefilter("ignore", SecurityWarning)
    end_with_parent()
    application = load_app(required(app))
    declared = declared_queues(application)
    wanted = [queue for queue in queues.split(",") if queue] or declared
    _require_known(wanted, declared)
    chosen = choose_pool(application, wanted, pool, concurrency)
    if chosen.hint:
        typer.echo(f"errands: {chosen.hint}.", err=True)
    if processes > 1:
        arguments = ["--app", app, "--queues", ",".join(wanted), "--concurrency", str(chosen.concurrency)]
        # A pool of the application's own has no name for the command line; each worker finds it by itself.
        arguments += ["--pool", chosen.name] if chosen.name in POOLS else []
        arguments += ["--loglevel", log_level] if log_level else []
        become_supervisor(name, processes, arguments)
    _when(worker_ready)
    raise typer.Exit(run_worker(application, name, wanted, chosen, level_for(application, log_level)))


def beat(
    app: AppOption = "",
    schedule: Annotated[Path | None, typer.Option(help="The file that remembers what was sent last.")] = None,
    log_level: LogLevelOption = None,
) -> None:
    """Run the beat, which sends what is scheduled."""
    from celery.signals import beat_init

    from errands.doors.cli.application import load_app
    from errands.doors.cli.application import log_level as level_for

    application = load_app(required(app))
    _when(beat_init)
    # Without a pid file: one left by a crash would keep it from starting.
    application.Beat(
        loglevel=level_for(application, log_level), schedule=str(schedule) if schedule else None, quiet=True
    ).run()


def upgrade(app: AppOption = "") -> None:
    """Run the migrations that are missing."""
    from errands.doors.cli.application import load_app, upgrade_database

    if upgrade_database(load_app(required(app))):
        typer.echo("The database is up to date.")
    else:
        typer.echo("This application keeps nothing in a database.")


def new_key(key_id: Annotated[str, typer.Option("--id", help="Short name of the key.")] = "k1") -> None:
    """Print a new key, for ERRANDS_SECRET_KEYS or ERRANDS_SIGNING_KEYS."""
    from errands.core.secrets import Keyring

    typer.echo(Keyring.new_key(key_id))


def doctor(
    app: AppOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of lines.")] = False,
) -> None:
    """Look for what is wrong with a running system; exit status 1 if something is."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from errands.app import Errands
    from errands.doors.cli.application import load_app
    from errands.ops.doctor import Level, doctor

    application = load_app(required(app))
    if not isinstance(application, Errands):
        raise LocalRunError(f"{app} is a plain Celery application; doctor looks at Errands applications.")
    findings = doctor(application)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console = Console(highlight=False)
        marks = {
            Level.GOOD: "[green]good[/]   ",
            Level.WARNING: "[yellow]warning[/]",
            Level.PROBLEM: "[red]problem[/]",
        }
        for finding in findings:
            console.print(f"{marks[finding.level]}  {finding.what}")
            if finding.advice:
                console.print(f"         → {finding.advice}")
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


def version() -> None:
    """Print the version of Errands."""
    from errands import __version__

    typer.echo(f"errands {__version__}")


def required(app: str) -> str:
    if not app:
        raise LocalRunError(NO_APP)
    return app


def _require_known(wanted: list[str], declared: list[str]) -> None:
    """A worker on a queue that nobody sends to would wait for ever without a word."""
    for queue in wanted:
        if queue not in declared:
            raise LocalRunError(f"No task uses the queue {queue!r}; declared are: {', '.join(declared)}.")


def _when(signal: Any) -> None:
    """Reports this process as ready once Celery sends `signal`."""
    from errands.doors.cli.application import report_ready

    def ready(**_: Any) -> None:
        report_ready()

    signal.connect(ready, weak=False)
