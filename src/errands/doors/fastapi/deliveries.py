"""The endpoints for recipients. They translate; what is decided is decided in `errands.ops.deliveries`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from errands.app import Errands
from errands.core.deliveries import DeliveryState
from errands.ops.access import Person
from errands.ops.deliveries import MOST, DeliveryOps

Answer = dict[str, Any]
Errors = Callable[..., dict[int | str, dict[str, Any]]]


class AskedToResend(BaseModel):
    """The body of a resending."""

    unknown: bool = Field(default=False, description="to those of whom nobody knows as well; may be twice")
    reason: str | None = Field(default=None, max_length=500, description="for the audit trail")


def add_deliveries(router: APIRouter, app: Errands, asking: Callable[..., Person], errors: Errors) -> None:
    """Add the endpoints to `router`.

    Args:
        asking: the dependency that gives the person who asks.
        errors: describes the answers with these status codes.
    """
    deliveries = DeliveryOps(app)

    @router.get("/api/deliveries/{task_id}", responses=errors(401, 404, 503))
    def page(
        task_id: str,
        after: int = Query(-1, ge=-1, le=2**31 - 1),
        limit: int = Query(100, ge=1, le=MOST),
        state: DeliveryState | None = None,
        who: Person = Depends(asking),
    ) -> Answer:
        """What became of each recipient of a run: a page of rows, and totals."""
        return deliveries.page(who, task_id, after=after, limit=limit, state=state)

    @router.post(
        "/api/deliveries/{task_id}/resend-failed", status_code=202, responses=errors(401, 404, 409, 503)
    )
    def resend_failed(
        task_id: str, asked: AskedToResend | None = None, who: Person = Depends(asking)
    ) -> Answer:
        """Send once more to those who bounced or failed."""
        asked = asked or AskedToResend()
        return deliveries.resend_failed(who, task_id, unknown=asked.unknown, reason=asked.reason)
