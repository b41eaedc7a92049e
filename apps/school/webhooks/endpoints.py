"""Who is told what happens: addresses, each attempt, and what can be done about it. For admins."""

from __future__ import annotations

from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import AfterValidator, Field

from errands.kits.webhooks import (
    AddressRefused,
    Delivery,
    DuplicateEndpoint,
    Endpoint,
    UnknownDelivery,
    UnknownEndpoint,
    Webhooks,
    WebhookStore,
)
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
    ordered: bool = False


class Change(Input):
    """What is left out stays as it is."""

    events: Annotated[list[Event] | None, Field(min_length=1, max_length=50)] = None
    ordered: bool | None = None
    active: bool | None = None


class Rotation(Input):
    # A secret that others know ends at once: 0 hours.
    previous_hours: Annotated[float, Field(ge=0, le=24 * 30)] = 24


@router.post("", status_code=201)
async def add(body: NewWebhook, user: Admin) -> dict[str, Any]:
    """Register an address. The secret that signs is shown now, and never again."""
    try:
        endpoint, secret = await _store().add(
            body.url, body.events, created_by=str(user.id), ordered=body.ordered
        )
    except AddressRefused as exc:
        raise HTTPException(422, str(exc)) from None
    except DuplicateEndpoint as exc:
        raise HTTPException(409, str(exc)) from None
    return {**_shown(endpoint), "secret": secret}


@router.get("")
async def every(_: Admin) -> list[dict[str, Any]]:
    """The registered addresses, without their secrets."""
    return [_shown(endpoint) for endpoint in await _store().list()]


@router.patch("/{webhook_id}")
async def change(webhook_id: WebhookId, body: Change, user: Admin) -> dict[str, Any]:
    """Change which events it gets, whether they come in order, and whether anything is sent at all."""
    store = _store()
    try:
        await store.change(webhook_id, events=body.events, ordered=body.ordered)
        if body.active is True:
            await store.enable(webhook_id)
        elif body.active is False:
            await store.disable(webhook_id, f"disabled by user {user.id}")
        return _shown(await store.get(webhook_id))
    except UnknownEndpoint:
        raise _missing() from None


@router.delete("/{webhook_id}", status_code=204)
async def remove(webhook_id: WebhookId, _: Admin) -> Response:
    """Send nothing to this address any more."""
    try:
        await _store().remove(webhook_id)
    except UnknownEndpoint:
        raise _missing() from None
    return Response(status_code=204)


@router.post("/{webhook_id}/rotate")
async def rotate(webhook_id: WebhookId, _: Admin, body: Rotation | None = None) -> dict[str, Any]:
    """Make a new secret, shown now, and never again. The one before signs beside it for a day, or as long as
    it says."""
    previous_for = timedelta(hours=(body or Rotation()).previous_hours)
    try:
        secret = await _store().rotate_secret(webhook_id, previous_for=previous_for)
        return {**_shown(await _store().get(webhook_id)), "secret": secret}
    except UnknownEndpoint:
        raise _missing() from None


@router.post("/{webhook_id}/ping")
async def ping(webhook_id: WebhookId, _: Admin) -> dict[str, Any]:
    """Send `webhook.ping` now, to a disabled address as well, and tell what came of it."""
    try:
        return _told(await app.resources.instance(Webhooks).ping(webhook_id))
    except UnknownEndpoint:
        raise _missing() from None


@router.get("/{webhook_id}/deliveries")
async def deliveries(
    webhook_id: WebhookId, _: Admin, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[dict[str, Any]]:
    """Each attempt, the newest first."""
    try:
        await _store().get(webhook_id)
    except UnknownEndpoint:
        raise _missing() from None
    return [_told(delivery) for delivery in await _store().deliveries(webhook_id, limit=limit)]


@router.post("/deliveries/{delivery_id}/replay", status_code=202)
async def replay(delivery_id: WebhookId, user: Admin) -> dict[str, Any]:
    """Send once more what was sent in this attempt, under the same webhook-id."""
    try:
        task_id = await app.resources.instance(Webhooks).replay(delivery_id, owner=str(user.id))
    except UnknownDelivery as exc:
        raise HTTPException(404, str(exc)) from None
    return {"task_id": task_id, "status": "queued"}


def _store() -> WebhookStore:
    return app.resources.instance(WebhookStore)


def _missing() -> HTTPException:
    return HTTPException(404, "There is no such webhook.")


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "ordered": endpoint.ordered,
        "active": endpoint.active,
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": endpoint.failing_since,
        "previous_secret_until": endpoint.previous_until,
        "created_at": endpoint.created_at,
    }


def _told(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "task_id": delivery.run_id,
        "webhook_id": delivery.message_id,
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
