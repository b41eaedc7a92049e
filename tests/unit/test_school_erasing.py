"""A person who is erased: their files, uploads, profile and name are gone, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import Files
from school.app import app
from school.people.tables import Role
from school.testing import PASSWORD, School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


async def test_a_person_is_erased(school: School) -> None:
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    ids = {email: user_id for user_id, email in school.emails.items()}
    for who in (ann, bob):
        await school.http.post("/uploads", files={"file": ("a.txt", b"words")}, headers=who)
        await school.http.post("/profiles", json={"display_name": "Somebody"}, headers=who)
    admin = await school.user("admin@example.org", Role.ADMIN)
    path = f"/api/people/{ids['ann@example.org']}/erase"
    erased = await school.http.post(path, json={"reason": "a letter"}, headers=admin)
    assert erased.status_code == 200, erased.text
    assert (await school.http.get("/me", headers=ann)).status_code == 401
    body = {"email": "ann@example.org", "password": PASSWORD}
    assert (await school.http.post("/login", json=body)).status_code == 401
    assert (await school.http.get("/profiles/me", headers=bob)).status_code == 200
    files = app.resources.instance(Files)
    with clock.use(FakeClock(clock.now() + timedelta(hours=1))):
        await files.sweep(older_than=timedelta(minutes=10))
    assert await files.usage(f"user:{ids['ann@example.org']}") == 0
    assert await files.usage(f"user:{ids['bob@example.org']}") == 5
    assert len(school.storage.files) == 1
