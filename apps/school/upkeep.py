"""What the school clears away, how old it must be, and how often it looks."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from errands.kits.push import NotificationStore
from errands.kits.storage import Files
from errands.kits.tables import Exports, Imports
from errands.kits.upkeep import Upkeep
from errands.kits.webhooks import WebhookStore
from school.people import service
from school.people.tables import UserSession

_MONTH = timedelta(days=30)


async def _sessions(*, session: AsyncSession) -> int:
    """Sessions and reset links: all that the hourly clean-up leaves."""
    return await service.cleanup(session)


async def _notifications(before: datetime, *, notifications: NotificationStore) -> int:
    return await notifications.prune(before)


async def _deliveries(before: datetime, *, webhooks: WebhookStore) -> int:
    return await webhooks.prune(before)


async def _lists(before: datetime, *, imports: Imports, exports: Exports, files: Files) -> int:
    """What is known of lists that were read and made; the files of the latter go with it."""
    keys = await exports.prune(before)
    for key in keys:
        await files.storage.delete(key)
    return len(keys) + await imports.journal.prune(before)


async def _files(*, files: Files) -> int:
    """Files that nobody refers to: of uploads that were cut off, of reports whose links hold no more."""
    return (await files.sweep(older_than=timedelta(days=2))).files


UPKEEP = [
    Upkeep(
        "cleanup_expired_sessions", table=UserSession, column=UserSession.expires_at, older_than=timedelta(0),
        cron="0 * * * *",
    ),
    Upkeep("cleanup_old_sessions", call=_sessions, cron="15 3 * * *"),
    Upkeep("cleanup_old_notifications", call=_notifications, older_than=_MONTH, cron="0 2 * * *"),
    Upkeep("cleanup_webhook_deliveries", call=_deliveries, older_than=_MONTH, cron="0 4 * * *"),
    Upkeep("cleanup_lists", call=_lists, older_than=_MONTH, cron="15 4 * * *"),
    Upkeep("cleanup_files", call=_files, cron="30 4 * * *"),
]  # fmt: skip
