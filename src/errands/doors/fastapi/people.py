"""Who is asking: dependencies that give a `Person`."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from errands.app import Errands
from errands.ops.access import ADMIN, Person

# A dependency: called by FastAPI with whatever its own parameters ask for.
PersonDependency = Callable[..., Any]

_bearer = HTTPBearer(auto_error=False, description="The token in ERRANDS_ADMIN_TOKEN")


def current_person(app: Errands) -> Callable[..., Person]:
    """A dependency for applications without people: whoever holds `Settings.admin_token` is the admin.

    Where no token is set, nobody gets in; the answer (401) says what to set.
    """

    def person(credentials: HTTPAuthorizationCredentials | None = Depends(_bearer)) -> Person:
        token = app.settings.admin_token
        expected = token.get_secret_value() if token is not None else ""
        if not expected:
            raise _not_signed_in("closed: set ERRANDS_ADMIN_TOKEN, then send `Authorization: Bearer <token>`")
        # A header's bytes reach us as Latin-1, whatever they were.
        given = credentials.credentials.encode("latin-1", "replace") if credentials is not None else b""
        if not hmac.compare_digest(given, expected.encode()):
            raise _not_signed_in("not signed in: send `Authorization: Bearer <token>` (ERRANDS_ADMIN_TOKEN)")
        return Person("admin", frozenset({ADMIN}))

    return person


def acting_person(app: Errands, person: PersonDependency) -> Callable[..., Awaitable[Any]]:
    """A dependency that gives what `person` gives, and makes all runs that the request starts theirs.

    `person` may give None for somebody who is not signed in; runs then have no owner.
    """

    # Not a plain `def`: FastAPI runs those in a thread with a context of its own, where the owner would stay.
    async def acting(found: Person | None = Depends(person)) -> Person | None:
        app.act_as(found.id if found is not None else None)
        return found

    return acting


def _not_signed_in(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})
