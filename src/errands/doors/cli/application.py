"""Finding the application that a command is about, and asking it what the command needs to know."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.utils import find_app

from errands.doors.local.errors import LocalRunError

NO_APP = "Which application? Give --app MODULE:NAME or set ERRANDS_APP (for instance myproject.tasks:app)."


def load_app(reference: str) -> Celery:
    """The Celery application `module:name` (or `module`, as with `celery -A`).

    LocalRunError if there is none of that name; an error inside the application's own modules passes through.
    """
    module = reference.partition(":")[0]
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    if not _exists(module):
        raise LocalRunError(f"There is no module {module} to take the application {reference!r} from.")
    try:
        app = find_app(reference)
    except AttributeError as error:
        raise LocalRunError(f"There is no application {reference!r}: {error}.") from None
    if not isinstance(app, Celery):
        raise LocalRunError(f"{reference!r} is no application but a {type(app).__name__}.")
    app.loader.import_default_modules()
    app.finalize(auto=True)
    return app


def declared_queues(app: Celery) -> list[str]:
    """The queues that the application's tasks go to, and those of its configuration, sorted."""
    from_tasks = {
        getattr(task, "queue", None) or app.conf.task_default_queue
        for name, task in app.tasks.items()
        if not name.startswith("celery.")
    }
    configured = {getattr(queue, "name", queue) for queue in app.conf.task_queues or ()}
    return sorted(from_tasks | configured | {app.conf.task_default_queue})


def upgrade_database(app: Celery) -> bool:
    """Runs the migrations that are missing; False where the application keeps nothing in a database."""
    database: Any = getattr(app, "database", None)
    if database is None:
        return False
    database.upgrade()
    return True


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
