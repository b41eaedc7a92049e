"""Sending messages to phones. What became of each is at `GET /api/deliveries/<task_id>`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from errands.kits.messaging import BulkRequest, Number
from school import dispatch
from school.access import Instructor, Writing
from school.fields import Input

router = APIRouter(tags=["messages"])

MOST_BYTES = 4 * 1024 * 1024  # 100,000 numbers


class TemplateMessage(Input):
    phone_number: Number
    template: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[a-zA-Z0-9_.-]+$")]
    values: Annotated[dict[str, str] | list[str], Field(max_length=50)] = {}  # noqa: RUF012 — pydantic copies it


@router.post("/api/send-bulk-messages", status_code=202)
async def send_bulk_messages(body: BulkRequest, user: Instructor, session: Writing) -> dict[str, Any]:
    """One text to up to 100,000 numbers; at most 100 messages a minute go out, whoever sends them."""
    task_id = dispatch.messages_wanted(
        session, body.phone_numbers, body.message, body.message_type, owner=user.id
    )
    return {
        "task_id": task_id, "status": "queued", "recipients": len(body.phone_numbers),
        "message": "Messages will be sent in background",
    }  # fmt: skip


@router.post("/api/send-template-message", status_code=202)
async def send_template_message(body: TemplateMessage, user: Instructor, session: Writing) -> dict[str, Any]:
    """One message by a template that the provider knows."""
    task_id = dispatch.template_wanted(session, body.phone_number, body.template, body.values, owner=user.id)
    return {"task_id": task_id, "status": "queued", "message": "The message will be sent in background"}
