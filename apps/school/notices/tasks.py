"""One notification to one user, or to the admins."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from errands import Run, Subject
from errands.kits.push import Notice, Notifier
from errands.kits.push.kit import RETRY
from errands.kits.push.tasks import Message
from school.app import app
from school.database import ReadingSession
from school.people import service


@app.task(name="send_notification", queue="notifications", retry=RETRY)
async def send_notification(
    user_id: Subject[Annotated[int, Field(gt=0)]], message: Message, *, run: Run, notifier: Notifier
) -> dict[str, int]:
    """Tell one user something; a message has 1 to 1,000 characters."""
    notice = Notice(title="Errands School", message=message)
    return await notifier.send(run, [user_id], notice, last=run.attempt > RETRY.times)


@app.task(name="tell_webhook_disabled", queue="notifications", retry=RETRY)
async def tell_webhook_disabled(
    endpoint_id: str, url: str, reason: str, *, run: Run, session: ReadingSession, notifier: Notifier
) -> dict[str, int]:
    """Tell the admins that an address is not called any more, and why."""
    notice = Notice(
        title="A webhook was switched off", message=f"{url[:300]}: {reason[:600]}", kind="webhooks",
        data={"endpoint_id": endpoint_id}, urgent=True,
    )  # fmt: skip
    return await notifier.send(run, await service.admins(session), notice, last=run.attempt > RETRY.times)
