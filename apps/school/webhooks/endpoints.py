"""Who is told what happens: addresses, and what became of each attempt. For admins."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import AfterValidator, Field

from errands.kits.webhooks import AddressRefused, DuplicateEndpoint, Endpoint, UnknownEndpoint, WebhookStore
from school.access import Admin
from school.app import app
from school.fields import Input

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

EVENTS = (
    "user.registered",
    "course.enrolled",
    "course.completed",
    "payment.completed",
    "certificate.generated",
)


def _known(pattern: str) -> str:
    if not any(fnmatchcase(event, pattern) for event in EVENTS):
        raise ValueError(f"there is no such event; there are {', '.join(EVENTS)}, and patterns like course.*")
    return pattern


Event = Annotated[str, Field(min_length=1, max_length=50), AfterValidator(_known)]
WebhookId = Annotated[str, Field(max_length=64)]


class NewWebhook(Input):
    url: Annotated[str, Field(min_length=1, max_length=2048)]
    events: Annotated[list[Event], Field(min_length=1, max_length=50)]


@router.post("", status_code=201)
async def add(body: NewWebhook, user: Admin) -> dict[str, Any]:
    """Register an address. The secret that signs is shown now, and never again."""
    try:
        endpoint, secret = await _store().add(body.url, body.events, created_by=str(user.id))
    except AddressRefused as exc:
        raise HTTPException(422, str(exc)) from None
    except DuplicateEndpoint as exc:
        raise HTTPException(409, str(exc)) from None
    return {**_shown(endpoint), "secret": secret}


@router.get("")
async def every(_: Admin) -> list[dict[str, Any]]:
    """The registered addresses, without their secrets."""
    return [_shown(endpoint) for endpoint in await _store().list()]


@router.delete("/{webhook_id}", status_code=204)
async def remove(webhook_id: WebhookId, _: Admin) -> Response:
    """Send nothing to this address any more."""
    try:
        await _store().remove(webhook_id)
    except UnknownEndpoint:
        raise _missing() from None
    return Response(status_code=204)


@router.get("/{webhook_id}/deliveries")
async def deliveries(
    webhook_id: WebhookId, _: Admin, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[dict[str, Any]]:
    """Each attempt, the newest first."""
    try:
        await _store().get(webhook_id)
    except UnknownEndpoint:
        raise _missing() from None
    return [
        {
            "task_id": delivery.run_id,
            "event": delivery.event,
            "url": delivery.url,
            "attempt": delivery.attempt,
            "status_code": delivery.status_code,
            "at": delivery.at,
            "duration_ms": delivery.duration_ms,
            "error": delivery.error,
            "next_try_at": delivery.next_try_at,
            "delivered_at": delivery.delivered_at,
        }
        for delivery in await _store().deliveries(webhook_id, limit=limit)
    ]


def _store() -> WebhookStore:
    return app.resources.instance(WebhookStore)


def _missing() -> HTTPException:
    return HTTPException(404, "There is no such webhook.")


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "active": endpoint.active,
        "disabled_reason": endpoint.disabled_reason,
        "created_at": endpoint.created_at,
    }
