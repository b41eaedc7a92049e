"""Making profiles."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Retry
from school.app import app
from school.people.tables import User
from school.profiles import service


@app.task_with_db(name="create_user_profile", queue="celery", retry=Retry(3, first=5, most=60))
async def create_user_profile(
    db: AsyncSession,
    user_id: Annotated[int, Field(gt=0)],
    display_name: Annotated[str, Field(min_length=1, max_length=200)],
    about: Annotated[str, Field(max_length=2000)] = "",
) -> dict[str, Any]:
    """Make a profile once; `status` is "created", or "already_exists" for whoever comes second."""
    if await db.get(User, user_id) is None:
        raise Discard(f"there is no user {user_id}")
    new = await service.create(db, user_id, display_name, about)
    return {"user_id": user_id, "status": "created" if new else "already_exists"}
