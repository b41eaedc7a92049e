"""What can be done with profiles. All SQL of this subject is here."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from school.database import insert_missing
from school.profiles.tables import Profile


async def create(session: AsyncSession, user_id: int, display_name: str, about: str) -> bool:
    """Make the user's profile; False if there is one, which stays as it is."""
    return await insert_missing(
        session, Profile, user_id=user_id, display_name=display_name, about=about, created_at=clock.now()
    )


async def get(session: AsyncSession, user_id: int) -> Profile | None:
    """The user's profile."""
    return await session.get(Profile, user_id)
