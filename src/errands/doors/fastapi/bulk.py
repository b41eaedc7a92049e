"""The endpoint for many runs at once. It translates; what is decided is decided in `errands.ops.bulk`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from errands.app import Errands
from errands.core.states import State
from errands.ops.access import Person
from errands.ops.bulk import BulkActions
from errands.store.rows import RunFilter

Answer = dict[str, Any]
Errors = Callable[..., dict[int | str, dict[str, Any]]]
_Name = Field(default=None, max_length=255)


class AskedToRevokeMany(BaseModel):
    """Which runs are no longer wanted."""

    task: str | None = _Name
    queue: str | None = _Name
    owner: str | None = _Name
    states: list[State] = Field(default_factory=list, max_length=9)
    since: datetime | None = None
    until: datetime | None = None
    terminate: bool = Field(default=False, description="end the processes that work on them")
    limit: int = Field(default=1000, ge=1, le=1000)
    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")


def add_bulk(router: APIRouter, app: Errands, asking: Callable[..., Person], errors: Errors) -> None:
    """Add the endpoint to `router`.

    Args:
        asking: the dependency that gives the person who asks.
        errors: describes the answers with these status codes.
    """
    bulk = BulkActions(app)

    @router.post("/api/tasks/revoke", status_code=202, responses=errors(401, 403, 409, 503))
    def revoke_many(asked: AskedToRevokeMany, who: Person = Depends(asking)) -> Answer:
        """Revoke all runs that match and have not ended."""
        which = RunFilter(
            states=asked.states, task=asked.task, queue=asked.queue, owner=asked.owner, since=asked.since,
            until=asked.until,
        )  # fmt: skip
        return bulk.revoke(who, which, terminate=asked.terminate, reason=asked.reason, limit=asked.limit)
