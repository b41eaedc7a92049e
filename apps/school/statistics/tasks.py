"""The counts of one user."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Retry, Unique
from school.app import app
from school.people.tables import User
from school.statistics import service


@app.task_with_db(
    name="update_user_stats",
    queue="celery",
    retry=Retry(3, first=5, most=60),
    unique=Unique(by=("user_id",), while_=("queued",)),
)
async def update_user_stats(db: AsyncSession, user_id: Annotated[int, Field(gt=0)]) -> dict[str, Any]:
    """Count what a user has done, and keep it. One run that waits serves all who ask meanwhile."""
    if await db.get(User, user_id) is None:
        raise Discard(f"there is no user {user_id}")
    return service.shown(await service.count(db, user_id))
