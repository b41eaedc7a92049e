"""The endpoints for schedules. They translate; what is decided is decided in `errands.ops.schedules`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from errands.app import Errands
from errands.ops.access import Person
from errands.ops.schedules import Schedules

Answer = dict[str, Any]
Errors = Callable[..., dict[int | str, dict[str, Any]]]


class Reason(BaseModel):
    """The body of an action."""

    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")


class Said(Reason):
    """The body of a change: what is left out stays as it is, null goes back to what the code says."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = None
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    cron: str | None = Field(default=None, max_length=200, description="five fields")
    every: float | None = Field(default=None, description="seconds")
    at: datetime | None = None
    tz: str | None = Field(default=None, max_length=64)
    catch_up: Literal["skip", "one", "all"] | None = None
    overlap: Literal["queue", "skip"] | None = None
    jitter: float | None = Field(default=None, description="seconds")
    only_if: list[dict[str, Any]] | None = None
    patience: float | None = Field(default=None, description="seconds")


def add_schedules(router: APIRouter, app: Errands, asking: Callable[..., Person], errors: Errors) -> None:
    """Add the endpoints to `router`.

    Args:
        asking: the dependency that gives the person who asks.
        errors: describes the answers with these status codes.
    """
    schedules = Schedules(app)
    acting = errors(401, 403, 404, 503)

    @router.get("/api/schedules", responses=errors(401, 403, 503))
    def all_schedules(who: Person = Depends(asking)) -> list[Answer]:
        """Each schedule: its rule, its next five due times, what became of the last one."""
        return schedules.all(who)

    @router.get("/api/schedules/{name}", responses=acting)
    def one_schedule(name: str, who: Person = Depends(asking)) -> Answer:
        """One schedule, with what became of its last hundred due times."""
        return schedules.one(who, name)

    @router.put("/api/schedules/{name}", responses={**errors(401, 403, 409, 503)})
    def save(name: str, said: Said, who: Person = Depends(asking)) -> Answer:
        """Make a schedule, or change what is said of one."""
        given = said.model_dump(include=said.model_fields_set - {"reason"})
        return schedules.save(who, name, reason=said.reason, **given)

    @router.delete("/api/schedules/{name}", responses=errors(401, 403, 404, 409, 503))
    def remove(name: str, who: Person = Depends(asking)) -> Answer:
        """Delete what people said of a schedule."""
        return schedules.remove(who, name)

    @router.post("/api/schedules/{name}/pause", status_code=202, responses=acting)
    def pause(name: str, asked: Reason | None = None, who: Person = Depends(asking)) -> Answer:
        """Let nothing be sent for now."""
        return schedules.pause(who, name, reason=asked.reason if asked else None)

    @router.post("/api/schedules/{name}/resume", status_code=202, responses=acting)
    def resume(name: str, asked: Reason | None = None, who: Person = Depends(asking)) -> Answer:
        """Go on with the due times that come."""
        return schedules.resume(who, name, reason=asked.reason if asked else None)

    @router.post("/api/schedules/{name}/run", status_code=202, responses=acting)
    def run(name: str, asked: Reason | None = None, who: Person = Depends(asking)) -> Answer:
        """Send a run now, beside the due times."""
        return schedules.run(who, name, reason=asked.reason if asked else None)
