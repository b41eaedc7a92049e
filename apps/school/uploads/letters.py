"""Reading an uploaded letter."""

from __future__ import annotations

from typing import Any

from errands import Discard, Run
from errands.kits.ocr import Ocr
from errands.kits.push import Notice, Notifier
from errands.kits.storage import Storage
from school.app import app
from school.database import ReadingSession
from school.uploads import service
from school.uploads.tasks import RETRY


@app.task(name="read_letter", queue="files", retry=RETRY, soft_time_limit=240, time_limit=300)
async def read_letter(
    upload_id: int, *, run: Run, session: ReadingSession, storage: Storage, ocr: Ocr, notifier: Notifier
) -> dict[str, Any]:
    """Its text, how sure the engine is of it, and its language; whoever uploaded it is told."""
    upload = await service.get(session, upload_id)
    if upload is None:
        raise Discard(f"there is no upload {upload_id}")
    reading = await ocr.read(await storage.read(upload.key))
    notice = Notice(
        title="Your letter was read", message=upload.filename, kind="uploads", data={"upload_id": upload_id}
    )
    await notifier.send(run, [upload.user_id], notice)
    return {"upload_id": upload_id, "text": reading.text, **reading.metadata()}
