"""The web side of the school: `uvicorn school.web:api`. Its documentation page is `/docs`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from errands.doors.fastapi import errands_router
from errands.kits.push.fastapi import notifications_router
from errands.kits.storage import Storage, link_signer
from errands.kits.storage.fastapi import files_router
from school import errors, limits
from school.access import person
from school.app import SCHOOL_NAME, app
from school.certificates.endpoints import router as certificates
from school.courses.endpoints import router as courses
from school.enrollments.endpoints import router as enrollments
from school.messages.endpoints import MOST_BYTES as LONGEST_MESSAGES
from school.messages.endpoints import router as messages
from school.notices.endpoints import MOST_BYTES as LONGEST_NOTICES
from school.notices.endpoints import router as notices
from school.orders.endpoints import router as orders
from school.payments.endpoints import router as payments
from school.people.endpoints import router as people
from school.people.pages import router as people_pages
from school.profiles.endpoints import router as profiles
from school.progress import answers as progress
from school.progress.endpoints import router as progress_pages
from school.statistics.endpoints import router as statistics
from school.students.endpoints import MOST_BYTES as LONGEST_LIST
from school.students.endpoints import router as students
from school.uploads import kinds as uploading
from school.uploads.endpoints import MOST_FILES
from school.uploads.endpoints import router as uploads
from school.webhooks.endpoints import router as webhooks

app.loader.import_default_modules()


@asynccontextmanager
async def _lifespan(_: FastAPI) -> AsyncIterator[None]:
    app.configure_logging()
    # A configuration that would lose or leak work stops the start, not a request later on.
    await asyncio.to_thread(app.check)
    yield
    await app.resources.aclose()
    await app.database.adispose()


# Its documentation page works without the internet.
api = FastAPIOffline(
    title=SCHOOL_NAME, redoc_url=None, lifespan=_lifespan, default_response_class=progress.Answer
)
api.add_middleware(
    limits.BodyLimit,
    larger={
        "/uploads": uploading.MOST_BYTES + limits.MOST_BYTES,
        "/api/send-bulk-messages": LONGEST_MESSAGES,
        "/api/notifications": LONGEST_NOTICES,
        "/api/students/import": LONGEST_LIST + limits.MOST_BYTES,
        "/uploads/many": MOST_FILES * uploading.MOST_BYTES // 4,
    },
)
errors.install(api)
for router in (
    people, people_pages, courses, enrollments, certificates, payments, orders, profiles, statistics,
    messages, notices, students, uploads, webhooks, progress_pages,
):  # fmt: skip
    api.include_router(router)
api.include_router(
    files_router(
        lambda: app.resources.instance(Storage),  # type: ignore[type-abstract]
        lambda: link_signer(app.settings),
    )
)
api.include_router(notifications_router(app, person))
api.include_router(errands_router(app, person))
