"""Finding the application that a command is about, and asking it what the command needs to know."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from celery import Celery
from celery.app.utils import find_app

from errands import Errands
from errands.doors.local.errors import LocalRunError


def load_app(reference: str) -> Celery:
    """The Celery application `module:name` (or `module`, as with `celery -A`).

    LocalRunError if there is none of that name; an error inside the application's own modules passes through.
    """
    module, _, name = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    if not _exists(module):
        raise LocalRunError(f"There is no module {module} to take the application {reference!r} from.")
    app = getattr(importlib.import_module(module), name, None) if name else find_app(reference)
    if app is None:
        raise LocalRunError(f"The module {module} has nothing called {name!r} to be the application.")
    if not isinstance(app, Celery):
        raise LocalRunError(f"{reference!r} is no application but a {type(app).__name__}.")
    app.loader.import_default_modules()
    app.finalize(auto=True)
    return app


def queues_by_kind(app: Celery) -> dict[str, list[str]]:
    """The application's queues, by the kind of worker that suits them: `io` (waits) or `cpu` (computes)."""
    if isinstance(app, Errands):
        return app.queues_by_kind()
    # A plain Celery application declares no kinds.
    from_tasks = {str(queue) for task in app.tasks.values() if (queue := vars(type(task)).get("queue"))}
    configured = {str(queue.name) for queue in app.conf.task_queues or ()}
    return {"io": sorted(from_tasks | configured | {app.conf.task_default_queue}), "cpu": []}


def declared_queues(app: Celery) -> list[str]:
    """All of them, sorted."""
    return sorted(queue for queues in queues_by_kind(app).values() for queue in queues)


def prefetch_for(app: Celery, queues: list[str]) -> int:
    """How many messages a process fetches ahead: 1 where tasks compute, so that none waits behind a long one
    while another process is idle."""
    computing = set(queues_by_kind(app)["cpu"])
    return 1 if set(queues) <= computing else int(app.conf.worker_prefetch_multiplier)


def upgrade_database(app: Celery) -> bool:
    """Runs the migrations that are missing; False where the application keeps nothing in a database."""
    if not isinstance(app, Errands):
        return False
    app.database.upgrade()
    return True


def log_level(app: Celery, given: str | None) -> str:
    """The level to log at: the one `given` on the command line goes before all that is configured."""
    if not isinstance(app, Errands):
        return given or os.environ.get("ERRANDS_LOG_LEVEL", "INFO")
    app.settings.log_level = given or app.settings.log_level
    return app.settings.log_level


def local_run() -> bool:
    """Whether this process belongs to `errands up`."""
    return "ERRANDS_READY_FILE" in os.environ


def report_ready() -> None:
    """Tells who started this process that it is at work, by making the file it was told of."""
    if path := os.environ.get("ERRANDS_READY_FILE"):
        Path(path).touch()


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
    except ValueError:
        return module in sys.modules
