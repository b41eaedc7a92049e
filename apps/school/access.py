"""Who asks, what they may do, and the database session their request works in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from errands.doors.fastapi import Person
from school.app import app
from school.cache import Cache
from school.database import ReadingSession, reading_session, writing_session
from school.people import service
from school.people.tables import Role, User

_bearer = HTTPBearer(auto_error=False, description="The access_token that POST /login answers.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def _writing() -> AsyncIterator[AsyncSession]:
    async with writing_session(app.database) as session:
        yield session


async def _reading() -> AsyncIterator[ReadingSession]:
    async with reading_session(app.database) as session:
        yield session


# Scope "function": the commit comes before the answer, so that nothing is promised that is not kept.
Writing = Annotated[AsyncSession, Depends(_writing, scope="function")]
Reading = Annotated[ReadingSession, Depends(_reading, scope="function")]


async def user_of(token: str) -> User | None:
    """Who is signed in with this token."""
    async with reading_session(app.database) as session:
        found = await service.by_token(session, token)
    if found is None:
        return None
    user, fading = found
    if fading:
        async with writing_session(app.database) as session:
            await service.prolong(session, token)
    return user


async def token_of(credentials: Credentials) -> str:
    """The request's bearer token; 401 without one."""
    if credentials is None:
        raise _not_signed_in()
    return credentials.credentials


async def maybe_signed_in(credentials: Credentials) -> User | None:
    """Who asks; None for somebody who is not signed in."""
    return None if credentials is None else await user_of(credentials.credentials)


async def signed_in(token: Annotated[str, Depends(token_of)]) -> User:
    """Who asks; 401 for somebody who is not signed in."""
    user = await user_of(token)
    if user is None:
        raise _not_signed_in()
    return user


class Needs:
    """Lets only users of some roles in: 403 for the others."""

    def __init__(self, *roles: Role) -> None:
        self.roles = roles

    async def __call__(self, user: Annotated[User, Depends(signed_in)]) -> User:
        if user.role not in self.roles:
            raise HTTPException(403, f"This is for the role {' or '.join(self.roles)}.")
        return user


Token = Annotated[str, Depends(token_of)]
SignedIn = Annotated[User, Depends(signed_in)]
MaybeSignedIn = Annotated[User | None, Depends(maybe_signed_in)]
Student = Annotated[User, Depends(Needs(Role.STUDENT))]
Instructor = Annotated[User, Depends(Needs(Role.INSTRUCTOR, Role.ADMIN))]
Admin = Annotated[User, Depends(Needs(Role.ADMIN))]


async def person(user: SignedIn) -> Person:
    """Who asks, in the words of Errands: runs are sent with the user's id as their owner."""
    return Person(str(user.id), frozenset({user.role}))


def cache() -> Cache:
    """The process's cache."""
    return app.resources.instance(Cache)  # type: ignore[type-abstract]


def client_address(request: Request) -> str:
    """The address that the request came from, as the web server has it."""
    return request.client.host if request.client else "unknown"


async def throttle(purpose: str, who: str, *, most: int, seconds: int) -> None:
    """Count this call.

    Raises:
        HTTPException: 429, there were more than `most` of them in a window of `seconds`.
    """
    if await cache().count(purpose, who, seconds) > most:
        raise too_many(seconds)


def too_many(seconds: int) -> HTTPException:
    """The answer to somebody who asks too often."""
    return HTTPException(429, "Too many requests; try again later.", {"Retry-After": str(seconds)})


def _not_signed_in() -> HTTPException:
    return HTTPException(401, "Sign in first: POST /login.", {"WWW-Authenticate": "Bearer"})
