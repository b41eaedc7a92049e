"""One notification to one user."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from errands import Run, Subject
from errands.kits.push import Notice, Notifier
from errands.kits.push.kit import RETRY
from errands.kits.push.tasks import Message
from school.app import app


@app.task(name="send_notification", queue="notifications", retry=RETRY)
async def send_notification(
    user_id: Subject[Annotated[int, Field(gt=0)]], message: Message, *, run: Run, notifier: Notifier
) -> dict[str, int]:
    """Tell one user something; a message has 1 to 1,000 characters."""
    notice = Notice(title="Errands School", message=message)
    return await notifier.send(run, [user_id], notice, last=run.attempt > RETRY.times)
