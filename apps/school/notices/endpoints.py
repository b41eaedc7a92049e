"""Notifying people. Their own notifications are under `/api/notifications`, by the push kit's router."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from errands.kits.push.tasks import Message, Title
from school import dispatch
from school.access import Admin, Instructor, Writing
from school.fields import Id, Input
from school.people.tables import Role

router = APIRouter(tags=["notifications"])

MOST_BYTES = 2 * 1024 * 1024  # 100,000 ids


class Notification(Input):
    user_ids: Annotated[list[Id], Field(min_length=1, max_length=100_000)]
    title: Title
    message: Message


class Broadcast(Input):
    title: Title
    message: Message
    role: Role | None = None


@router.post("/api/notifications", status_code=202)
async def notify(body: Notification, user: Instructor, session: Writing) -> dict[str, Any]:
    """A notification each to some users."""
    task_id = dispatch.notifications_wanted(session, body.user_ids, body.title, body.message, owner=user.id)
    return {
        "task_id": task_id, "status": "queued", "recipients": len(body.user_ids),
        "message": "Notifications will be sent in background",
    }  # fmt: skip


@router.post("/api/notifications/broadcast", status_code=202)
async def broadcast(body: Broadcast, user: Admin, session: Writing) -> dict[str, Any]:
    """A notification to everybody, or to all of a role."""
    role = None if body.role is None else body.role.value
    task_id = dispatch.broadcast_wanted(session, body.title, body.message, role, owner=user.id)
    return {"task_id": task_id, "status": "queued", "message": "Notifications will be sent in background"}
