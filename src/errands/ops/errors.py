"""What a question about runs can end in, beside `RunNotFound` and `ActionRefused`."""

from __future__ import annotations

from errands.core.errors import ErrandsError


class NotAllowed(ErrandsError):
    """This person's roles do not allow it."""


class RecordUnavailable(ErrandsError):
    """Valkey or the database does not answer, so nobody can say what the record holds."""


class QueueNotFound(ErrandsError):
    """The app has no queue of this name."""


class ScheduleNotFound(ErrandsError):
    """The app has no schedule of this name."""
