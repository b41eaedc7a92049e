"""The background side of the school: its queues, kits, resources and schedules.

Workers: `python -m errands worker --app school.app:app --queues emails --concurrency 4`; a beat beside them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Errands, Queue
from errands.kits import documents, images, mail, messaging, ocr, push, storage, tables, upkeep, webhooks
from school.cache import Cache, MemoryCache, ValkeyCache
from school.database import ReadingSession, reading_session, writing_session
from school.payments.gateway import Gateway, gateway
from school.people.tables import User
from school.upkeep import UPKEEP

SCHOOL_NAME = "Errands School"
QUOTA = 1024**3  # bytes that each user's files may take

app = Errands(
    "school",
    queues=[
        Queue("emails"),
        Queue("certificates", cpu=True),
        Queue("progress"),
        Queue("webhooks"),
        Queue("files"),
        Queue("reports", cpu=True),
        Queue("messaging"),
        Queue("notifications"),
        Queue("celery"),
    ],
    include=[
        "school.people.tasks",
        "school.people.erasing",
        "school.courses.tasks",
        "school.enrollments.tasks",
        "school.certificates.tasks",
        "school.analytics.tasks",
        "school.payments.tasks",
        "school.orders.tasks",
        "school.profiles.tasks",
        "school.statistics.tasks",
        "school.notices.tasks",
        "school.students.lists",
        "school.students.reports",
        "school.uploads.tasks",
        "school.uploads.photos",
        "school.uploads.reports",
        "school.uploads.letters",
    ],
)


def everybody() -> push.SqlAudience:
    """All who may be told something: users that are active, by their role."""
    return push.SqlAudience(app.database, User.id, role=User.role, where=User.is_active.is_(True))


app.use(mail.kit(templates=Path(__file__).parent / "mail" / "templates"))
app.use(documents.kit())
app.use(images.kit())
app.use(storage.kit(quota=QUOTA))
app.use(tables.kit(lambda: app.resources.instance(storage.Storage)))  # type: ignore[type-abstract]
app.use(messaging.kit(tasks=True))
app.use(push.kit(tasks=True, audience=everybody))
app.use(ocr.kit())
app.use(upkeep.kit(UPKEEP))
app.use(webhooks.kit(on_disabled="tell_webhook_disabled"))

app.provide(AsyncSession, lambda: writing_session(app.database))
app.provide(ReadingSession, lambda: reading_session(app.database))
app.provide(
    Cache,
    lambda: MemoryCache() if app.settings.inline else ValkeyCache(app.clients, app.keys),
    scope="process",
)

app.provide(Gateway, gateway, scope="process")

app.schedule("generate_daily_analytics", "generate_daily_analytics", cron="0 1 * * *", catch_up="all")
