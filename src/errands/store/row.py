"""Rows of the ledger while events are added to them.

The fields are the columns, in the tables' order and in the form that the driver takes: moments as the
dialect writes them, JSON as text. `UNSET` marks a heavy column that was not loaded, and is not written.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

# A moment: text on SQLite, an aware datetime on PostgreSQL. Both can be compared.
Moment = Any
Heavy = str | None | UnsetType


class Run(msgspec.Struct, gc=False):
    """A row of `errands_runs`."""

    id: str
    task: str | None
    queue: str | None
    state: str
    owner: str | None
    parent_id: str | None
    root_id: str | None
    args: Heavy
    kwargs: Heavy
    message: Heavy
    attempt: int
    max_attempts: int | None
    created_at: Moment
    queued_at: Moment
    eta: Moment
    started_at: Moment
    finished_at: Moment
    expires_at: Moment
    reopened_at: Moment
    updated_at: Moment
    duration: float | None
    worker: str | None
    subject: str | None
    result: Heavy
    error_type: Heavy
    error_message: Heavy
    error_traceback: Heavy
    progress: Heavy


class Attempt(msgspec.Struct, gc=False):
    """A row of `errands_attempts`."""

    run_id: str
    number: int
    started_at: Moment = None
    finished_at: Moment = None
    outcome: str | None = None
    worker: str | None = None
    duration: float | None = None
    error_type: Heavy = None
    error_message: Heavy = None
    error_traceback: Heavy = None
    retry_at: Moment = None


__all__ = ["UNSET", "Attempt", "Heavy", "Moment", "Run"]
