"""Errands: background work for web applications, on Celery.

Nothing lost, nothing done twice, answers at once. Start with the README; `docs/` has a page a feature.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from errands.app import Errands
    from errands.core.errors import (
        ActionRefused,
        ConfigurationError,
        Discard,
        ErrandsError,
        InvalidArguments,
        PayloadTooLarge,
        RunNotFound,
        SecretError,
        Snooze,
    )
    from errands.core.events import Event, Kind
    from errands.core.retry import Retry
    from errands.core.secrets import Keyring, Secret
    from errands.core.states import State
    from errands.core.task import Queue
    from errands.settings import Settings
    from errands.store.engine import Database
    from errands.store.tables import metadata
    from errands.task import Task
    from errands.worker.run import Run, current_run

# Imported when they are asked for: a small program (the command line, the mail catcher of the local run)
# starts in a tenth of the time that the whole takes.
_HOMES = {
    "Errands": "errands.app",
    "ActionRefused": "errands.core.errors",
    "ConfigurationError": "errands.core.errors",
    "Discard": "errands.core.errors",
    "ErrandsError": "errands.core.errors",
    "InvalidArguments": "errands.core.errors",
    "PayloadTooLarge": "errands.core.errors",
    "RunNotFound": "errands.core.errors",
    "SecretError": "errands.core.errors",
    "Snooze": "errands.core.errors",
    "Event": "errands.core.events",
    "Kind": "errands.core.events",
    "Retry": "errands.core.retry",
    "Keyring": "errands.core.secrets",
    "Secret": "errands.core.secrets",
    "State": "errands.core.states",
    "Queue": "errands.core.task",
    "Settings": "errands.settings",
    "Database": "errands.store.engine",
    "metadata": "errands.store.tables",
    "Task": "errands.task",
    "Run": "errands.worker.run",
    "current_run": "errands.worker.run",
}

__all__ = [
    "ActionRefused",
    "ConfigurationError",
    "Database",
    "Discard",
    "Errands",
    "ErrandsError",
    "Event",
    "InvalidArguments",
    "Keyring",
    "Kind",
    "PayloadTooLarge",
    "Queue",
    "Retry",
    "Run",
    "RunNotFound",
    "Secret",
    "SecretError",
    "Settings",
    "Snooze",
    "State",
    "Task",
    "current_run",
    "metadata",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
