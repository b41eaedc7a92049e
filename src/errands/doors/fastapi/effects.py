"""The endpoints for outside effects. They translate; what is decided is decided in `errands.ops.effects`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from errands.app import Errands
from errands.ops.access import Person
from errands.ops.effects import EffectOps

Answer = dict[str, Any]
Errors = Callable[..., dict[int | str, dict[str, Any]]]


class Settlement(BaseModel):
    """What a person found out."""

    done: bool = Field(description="it has happened; else it may be done again")
    result: Any = Field(default=None, description="what `run.once` is to give from now on")
    scope: str | None = Field(default=None, max_length=200, description="where it is not the run's id")
    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")


def add_effects(router: APIRouter, app: Errands, asking: Callable[..., Person], errors: Errors) -> None:
    """Add the endpoints to `router`.

    Args:
        asking: the dependency that gives the person who asks.
        errors: describes the answers with these status codes.
    """
    effects = EffectOps(app)

    @router.get("/api/effects/unknown", responses=errors(401, 403, 503))
    def unknown(limit: int = Query(100, ge=1, le=1000), who: Person = Depends(asking)) -> list[Answer]:
        """Effects of which nobody can say whether they happened."""
        return effects.unknown(who, limit)

    @router.post(
        "/api/tasks/{task_id}/effects/{name}/settle",
        status_code=202,
        responses=errors(401, 403, 404, 409, 503),
    )
    def settle(task_id: str, name: str, told: Settlement, who: Person = Depends(asking)) -> Answer:
        """Say what became of an effect; then the run can be retried."""
        return effects.settle(
            who, task_id, name, done=told.done, result=told.result, scope=told.scope, reason=told.reason
        )
