"""Errands: background work for web applications, on Celery.

Nothing lost, nothing done twice, answers at once. Start with the README; `docs/` has a page a feature.
"""

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
