"""What can be done with uploads. All SQL of this subject is here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from school.database import insert_missing
from school.uploads.tables import Photo, Upload


async def add(
    session: AsyncSession, *, user_id: int, key: str, filename: str, content_type: str, size: int,
    purpose: str, run_id: str,
) -> Upload:  # fmt: skip
    """A new upload."""
    upload = Upload(
        user_id=user_id, key=key, filename=filename, content_type=content_type, size=size,
        purpose=purpose, run_id=run_id, created_at=clock.now(),
    )  # fmt: skip
    session.add(upload)
    await session.flush()
    return upload


async def get(session: AsyncSession, upload_id: int) -> Upload | None:
    """The upload."""
    return await session.get(Upload, upload_id)


async def add_photos(session: AsyncSession, upload_id: int, photos: Iterable[dict[str, Any]]) -> None:
    """Keep the forms of a photo: name, key, width, height, size. Those that are there stay."""
    for photo in photos:
        await insert_missing(session, Photo, upload_id=upload_id, **photo)


async def photos_of(session: AsyncSession, upload_id: int) -> list[Photo]:
    """The forms of a photo, the largest first."""
    query = select(Photo).where(Photo.upload_id == upload_id).order_by(Photo.width.desc())
    return list(await session.scalars(query))
