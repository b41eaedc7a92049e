"""The background side of the school: its queues, kits, resources and schedules.

Workers: `python -m errands worker --app school.app:app --queues emails --concurrency 4`; a beat beside them.
"""

from __future__ import annotations

from pathlib import Path

from celery.schedules import crontab
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Errands, Queue
from errands.kits import documents, mail, storage, webhooks
from school.cache import Cache, MemoryCache, ValkeyCache
from school.database import ReadingSession, reading_session, writing_session

SCHOOL_NAME = "Errands School"

app = Errands(
    "school",
    queues=[
        Queue("emails"),
        Queue("certificates", cpu=True),
        Queue("progress"),
        Queue("webhooks"),
        Queue("celery"),
    ],
    include=[
        "school.people.tasks",
        "school.courses.tasks",
        "school.enrollments.tasks",
        "school.certificates.tasks",
        "school.analytics.tasks",
    ],
)

app.use(mail.kit(templates=Path(__file__).parent / "mail" / "templates"))
app.use(documents.kit())
app.use(storage.kit())
app.use(webhooks.kit())

app.provide(AsyncSession, lambda: writing_session(app.database))
app.provide(ReadingSession, lambda: reading_session(app.database))
app.provide(
    Cache,
    lambda: MemoryCache() if app.settings.inline else ValkeyCache(app.clients, app.keys),
    scope="process",
)

app.conf.beat_schedule = {
    "cleanup_expired_sessions": {"task": "cleanup_expired_sessions", "schedule": crontab(minute="0")},
    "generate_daily_analytics": {
        "task": "generate_daily_analytics",
        "schedule": crontab(minute="0", hour="1"),
    },
}
