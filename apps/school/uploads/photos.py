"""From an uploaded photo to its small forms: compress, store, notify, each a run of its own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Run
from errands.kits.images import Images, Variant, compress_stored
from errands.kits.push import Notice, Notifier
from errands.kits.storage import Files, Storage
from school.app import app
from school.database import ReadingSession
from school.uploads import service
from school.uploads.steps import send_steps
from school.uploads.tasks import RETRY

FORMS = {
    "large": Variant(max_size=(1920, 1080), format="jpeg", quality=85),
    "small": Variant(max_size=(480, 480), format="webp", quality=80),
}


@app.task(name="process_photo", queue="files", retry=RETRY)
def process_photo(upload_id: int, *, run: Run) -> list[str]:
    """Send the three steps; returns the ids of their runs."""
    return send_steps(run, ("compress_photo", "store_photo", "notify_photo"), upload_id)


@app.task(name="compress_photo", queue="files", retry=RETRY)
async def compress_photo(
    upload_id: int, *, session: ReadingSession, images: Images, storage: Storage
) -> dict[str, Any]:
    """Make the photo smaller, upright, and without what it tells of its maker.

    Done twice, it is the same files. They go on by their keys: a message is no place for pictures.
    """
    upload = await service.get(session, upload_id)
    if upload is None:
        raise Discard(f"there is no upload {upload_id}")
    made = await compress_stored(
        images, storage, upload.key, *FORMS.values(), folder="photos", unique=f"upload {upload_id}"
    )
    photos = [
        {"name": name, **{key: asdict(photo)[key] for key in ("key", "width", "height", "size")}}
        for name, photo in zip(FORMS, made, strict=True)
    ]
    return {"upload_id": upload_id, "photos": photos}


@app.task(name="store_photo", queue="files", retry=RETRY)
async def store_photo(made: dict[str, Any], *, session: AsyncSession, files: Files) -> int:
    """Note the forms of the photo; from now on no sweep takes them. Returns the upload's id."""
    upload_id = int(made["upload_id"])
    upload = await service.get(session, upload_id)
    if upload is None:
        raise Discard(f"there is no upload {upload_id}")
    for photo in made["photos"]:
        await files.keep(
            photo["key"], referrer=f"upload:{upload_id}", owner=f"user:{upload.user_id}", session=session
        )
    await service.add_photos(session, upload_id, made["photos"])
    return upload_id


@app.task(name="notify_photo", queue="notifications", retry=RETRY)
async def notify_photo(
    upload_id: int, *, run: Run, session: ReadingSession, notifier: Notifier
) -> dict[str, int]:
    """Tell whoever uploaded it that the photo is there."""
    upload = await service.get(session, upload_id)
    if upload is None:
        raise Discard(f"there is no upload {upload_id}")
    notice = Notice(
        title="Your photo is ready", message=upload.filename, kind="uploads", data={"upload_id": upload_id}
    )
    return await notifier.send(run, [upload.user_id], notice)
