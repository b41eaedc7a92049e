"""Errands: background work for web applications, on Celery.

Nothing lost, nothing done twice, answers at once. Start with the README; `docs/` has a page a feature.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from errands.app import Errands
    from errands.batch import Batch
    from errands.core.batches import BatchStatus
    from errands.core.conditions import CpuBelow, QueueBelow
    from errands.core.errors import (
        ActionRefused,
        ConfigurationError,
        Discard,
        EffectUnknown,
        ErrandsError,
        InvalidArguments,
        OutcomeUnknown,
        PayloadLost,
        PayloadTooLarge,
        PayloadUnavailable,
        RunCancelled,
        RunNotFound,
        SecretError,
        Snooze,
        UntrustedMessage,
    )
    from errands.core.events import Event, Kind
    from errands.core.limits import Concurrency, Limit
    from errands.core.payloads import PayloadStore
    from errands.core.personal import Personal, Subject
    from errands.core.retry import Retry
    from errands.core.secrets import Keyring, Secret
    from errands.core.states import State
    from errands.core.task import Queue
    from errands.core.unique import Unique
    from errands.deliveries.facade import Deliveries
    from errands.settings import Settings
    from errands.store.engine import Database
    from errands.store.tables import metadata
    from errands.task import Task
    from errands.worker.run import Run, current_run

# Imported when they are asked for: a small program (the command line, the mail catcher of the local run)
# starts in a tenth of the time that the whole takes.
_HOMES = {
    "Errands": "errands.app",
    "Batch": "errands.batch",
    "BatchStatus": "errands.core.batches",
    "CpuBelow": "errands.core.conditions",
    "QueueBelow": "errands.core.conditions",
    "ActionRefused": "errands.core.errors",
    "ConfigurationError": "errands.core.errors",
    "Discard": "errands.core.errors",
    "ErrandsError": "errands.core.errors",
    "InvalidArguments": "errands.core.errors",
    "RunCancelled": "errands.core.errors",
    "OutcomeUnknown": "errands.core.errors",
    "EffectUnknown": "errands.core.errors",
    "PayloadLost": "errands.core.errors",
    "PayloadTooLarge": "errands.core.errors",
    "PayloadUnavailable": "errands.core.errors",
    "RunNotFound": "errands.core.errors",
    "SecretError": "errands.core.errors",
    "Snooze": "errands.core.errors",
    "Event": "errands.core.events",
    "Kind": "errands.core.events",
    "Concurrency": "errands.core.limits",
    "Limit": "errands.core.limits",
    "PayloadStore": "errands.core.payloads",
    "UntrustedMessage": "errands.core.errors",
    "Personal": "errands.core.personal",
    "Subject": "errands.core.personal",
    "Retry": "errands.core.retry",
    "Keyring": "errands.core.secrets",
    "Secret": "errands.core.secrets",
    "State": "errands.core.states",
    "Queue": "errands.core.task",
    "Unique": "errands.core.unique",
    "Deliveries": "errands.deliveries.facade",
    "Settings": "errands.settings",
    "Database": "errands.store.engine",
    "metadata": "errands.store.tables",
    "Task": "errands.task",
    "Run": "errands.worker.run",
    "current_run": "errands.worker.run",
}

__all__ = [
    "ActionRefused",
    "Batch",
    "BatchStatus",
    "Concurrency",
    "ConfigurationError",
    "CpuBelow",
    "Database",
    "Deliveries",
    "Discard",
    "EffectUnknown",
    "Errands",
    "ErrandsError",
    "Event",
    "InvalidArguments",
    "Keyring",
    "Kind",
    "Limit",
    "OutcomeUnknown",
    "PayloadLost",
    "PayloadStore",
    "PayloadTooLarge",
    "PayloadUnavailable",
    "Personal",
    "Queue",
    "QueueBelow",
    "Retry",
    "Run",
    "RunCancelled",
    "RunNotFound",
    "Secret",
    "SecretError",
    "Settings",
    "Snooze",
    "State",
    "Subject",
    "Task",
    "Unique",
    "UntrustedMessage",
    "current_run",
    "metadata",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
