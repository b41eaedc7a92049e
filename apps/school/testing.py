"""The school for tests: everything runs in the caller, on the test's own database, and nothing leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from argon2.low_level import Type

from errands import Database, Keyring, Settings
from errands.broker.keys import Keys
from errands.kits.documents import Documents
from errands.kits.documents.fake import FakeDocuments
from errands.kits.mail import FakeMailer, Mailer, Message
from errands.kits.messaging import FakeMessenger, Messenger
from errands.kits.storage import Storage, link_signer
from errands.kits.storage.fake import MemoryStorage
from errands.kits.webhooks import FakeSender, Sender
from errands.worker.effects import InlineEffects
from errands.worker.inline import InlineRuns
from errands.worker.loop import process_loop
from school.app import app
from school.cache import Cache, MemoryCache
from school.database import writing_session
from school.migrate import upgrade
from school.people import passwords, service
from school.people.tables import Role
from school.tables import metadata
from school.web import api

PASSWORD = "correct horse"  # noqa: S105
WEBHOOK_HOST = "hooks.test:8443"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, hash_len=16, salt_len=8, type=Type.ID)


@dataclass
class School:
    """A running school and what it would have sent out."""

    database: Database
    http: httpx.AsyncClient
    mailer: FakeMailer
    storage: MemoryStorage
    documents: FakeDocuments
    sender: FakeSender
    messenger: FakeMessenger
    emails: dict[int, str] = field(default_factory=dict)

    def mails_to(self, email: str) -> list[Message]:
        """The mails to this address, the oldest first."""
        return [mail for mail in self.mailer.outbox if email in mail.recipients]

    def subjects(self) -> list[str]:
        """The subjects of all mails."""
        return [mail.subject for mail in self.mailer.outbox]

    def events(self) -> list[dict[str, Any]]:
        """The webhooks that went out, each as its body has it."""
        return [sent.json for sent in self.sender.sent]

    async def user(self, email: str, role: Role = Role.STUDENT, name: str = "Ann Lee") -> dict[str, str]:
        """The headers of somebody who is signed in; made if there is no such user."""
        async with writing_session(self.database) as session:
            user = await service.by_email(session, email)
            if user is None:
                user = await service.register(session, email, CHEAP.hash(PASSWORD), name, role)
            self.emails[user.id] = email
            return {"Authorization": f"Bearer {await service.sign_in(session, user.id)}"}

    async def course(self, lessons: int = 2, title: str = "Algebra") -> dict[str, Any]:
        """A course as the API shows it."""
        headers = await self.user("teacher@school.test", Role.INSTRUCTOR, "Tea Cher")
        body = {"title": title, "lessons": [f"Lesson {number}" for number in range(1, lessons + 1)]}
        answer = await self.http.post("/courses", json=body, headers=headers)
        answer.raise_for_status()
        return dict(answer.json())

    async def enroll(self, headers: dict[str, str], course: dict[str, Any]) -> int:
        """Enrol, and answer the enrollment's id."""
        answer = await self.http.post(f"/courses/{course['id']}/enroll", headers=headers)
        answer.raise_for_status()
        return int(answer.json()["enrollment_id"])

    async def complete(self, headers: dict[str, str], lesson: dict[str, Any]) -> httpx.Response:
        """Finish one lesson."""
        return await self.http.post(f"/lessons/{lesson['id']}/complete", headers=headers)

    async def graduate(self, headers: dict[str, str], course: dict[str, Any]) -> dict[str, Any]:
        """Enrol and finish all lessons; answers the enrollment as the API shows it."""
        enrollment_id = await self.enroll(headers, course)
        for lesson in course["lessons"]:
            (await self.complete(headers, lesson)).raise_for_status()
        answer = await self.http.get(f"/enrollments/{enrollment_id}", headers=headers)
        answer.raise_for_status()
        return dict(answer.json())


@asynccontextmanager
async def school_on(
    database: Database, home: Path, *, migrate: bool = False, **settings: Any
) -> AsyncIterator[School]:
    """The school on `database`, inline unless `settings` say otherwise. As it was before, at the end.

    `database` holds Errands' tables already. Those of the school are made as they are declared, which is
    faster than by their migrations; `migrate` takes the slow way.
    """
    values: dict[str, Any] = {
        "inline": True,
        "home": home,
        "database_url": database.url.render_as_string(hide_password=False),
        "secret_keys": Keyring.new_key(),
        "public_url": "http://school.test",
        "webhook_allow": WEBHOOK_HOST,
    }
    given = Settings(**{**values, **settings})
    await asyncio.to_thread(upgrade if migrate else _make_tables, database)
    mailer, documents, sender, messenger = FakeMailer(), FakeDocuments(), FakeSender(), FakeMessenger()
    storage = MemoryStorage(link_signer(given))
    names = ("settings", "keyring", "keys", "_inline_runs", "inline_effects")
    before = {name: getattr(app, name) for name in names}
    providers, instances = dict(app.resources._providers), dict(app.resources._instances)
    database_before, eager = app.__dict__.get("database"), app.conf.task_always_eager
    hasher = passwords.use(CHEAP)
    app.settings, app.keyring, app.keys = given, given.keyring(), Keys(given.key_prefix)
    app._inline_runs, app.inline_effects = InlineRuns(), InlineEffects()
    app._inline_runs.batches.send = app.send_follow_ups
    app.__dict__["database"], app.conf.task_always_eager = database, given.inline
    app.provide(Mailer, lambda: mailer, scope="process")
    app.provide(Documents, lambda: documents, scope="process")
    app.provide(Storage, lambda: storage, scope="process")
    app.provide(Sender, lambda: sender, scope="process")
    app.provide(Messenger, lambda: messenger, scope="process")
    app.provide(Cache, MemoryCache, scope="process")
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://school.test") as http:
            yield School(database, http, mailer, storage, documents, sender, messenger)
    finally:
        await asyncio.to_thread(process_loop().run, database.adispose())
        await database.adispose()
        passwords.use(hasher)
        for name, value in before.items():
            setattr(app, name, value)
        app.resources._providers, app.resources._instances = providers, instances
        app.__dict__.pop("database")
        app.conf.task_always_eager = eager
        if database_before is not None:
            app.__dict__["database"] = database_before


def _make_tables(database: Database) -> None:
    with database.writing() as connection:
        metadata.create_all(connection)
