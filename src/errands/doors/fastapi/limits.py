"""The endpoints for limits. They translate; what is decided is decided in `errands.ops.limits`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from errands.app import Errands
from errands.ops.access import Person
from errands.ops.limits import LimitOps

Answer = dict[str, Any]
Errors = Callable[..., dict[int | str, dict[str, Any]]]


class AskedToReset(BaseModel):
    """The body of a reset."""

    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")


class AskedToChange(AskedToReset):
    """The body of a change."""

    to: int | str = Field(description='"50/m", or how many at once')


def add_limits(router: APIRouter, app: Errands, asking: Callable[..., Person], errors: Errors) -> None:
    """Add the endpoints to `router`.

    Args:
        asking: the dependency that gives the person who asks.
        errors: describes the answers with these status codes.
    """
    limits = LimitOps(app)
    acting = errors(401, 403, 404, 409, 503)

    @router.get("/api/limits", responses=errors(401, 403, 503))
    def all_limits(who: Person = Depends(asking)) -> list[Answer]:
        """Each limit: what holds, what the code says, how many runs wait for it."""
        return limits.all(who)

    @router.post("/api/limits/{name}/change", status_code=202, responses=acting)
    def change(name: str, asked: AskedToChange, who: Person = Depends(asking)) -> Answer:
        """Change a limit for all workers at once."""
        return limits.change(who, name, asked.to, reason=asked.reason)

    @router.post("/api/limits/{name}/reset", status_code=202, responses=acting)
    def reset(name: str, asked: AskedToReset | None = None, who: Person = Depends(asking)) -> Answer:
        """Let what the code says hold again."""
        return limits.reset(who, name, reason=asked.reason if asked else None)
