"""One's profile."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import Field

from school import dispatch
from school.access import Reading, SignedIn, Writing
from school.fields import FullName, Input
from school.profiles import service

router = APIRouter(tags=["profiles"])


class NewProfile(Input):
    display_name: FullName
    about: Annotated[str, Field(max_length=2000)] = ""


@router.post("/profiles", status_code=202)
async def create(body: NewProfile, user: SignedIn, session: Writing) -> dict[str, Any]:
    """Make one's profile, in the background; a second request finds the first one's."""
    task_id = dispatch.profile_wanted(session, user.id, body.display_name, body.about)
    return {"task_id": task_id, "status": "queued", "message": "The profile is being made."}


@router.get("/profiles/me")
async def mine(user: SignedIn, session: Reading) -> dict[str, Any]:
    """One's own profile."""
    profile = await service.get(session, user.id)
    if profile is None:
        raise HTTPException(404, "There is no profile yet: POST /profiles.")
    return {
        "user_id": profile.user_id, "display_name": profile.display_name, "about": profile.about,
        "created_at": profile.created_at,
    }  # fmt: skip
