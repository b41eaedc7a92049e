"""What can be done with people and their sessions. All SQL of this subject is here."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from errands.core import clock
from school.database import changed, insert_missing
from school.fields import email_key
from school.people.passwords import new_token, token_hash
from school.people.tables import PasswordReset, Role, User, UserSession

SESSION_LIFE = timedelta(days=30)  # without being used
RESET_LIFE = timedelta(minutes=20)
_SLIDE = timedelta(hours=1)  # a session's end is moved at most so often: reads should stay reads


class EmailTaken(Exception):
    """Somebody has this address already."""


class ResetRefused(Exception):
    """The reset token is unknown, used, or too old."""


async def register(
    session: AsyncSession, email: str, password_hash: str, full_name: str, role: Role = Role.STUDENT
) -> User:
    """A new user.

    Raises:
        EmailTaken: also when two register with one address at the same moment.
    """
    key = email_key(email)
    made = await insert_missing(
        session, User, email=email, email_key=key, full_name=full_name, password_hash=password_hash,
        role=role.value, created_at=clock.now(),
    )  # fmt: skip
    if not made:
        raise EmailTaken(email)
    return (await session.scalars(select(User).where(User.email_key == key))).one()


async def by_email(session: AsyncSession, email: str) -> User | None:
    """The user with this address, however it is capitalised."""
    return await session.scalar(select(User).where(User.email_key == email_key(email)))


async def sign_in(session: AsyncSession, user_id: int) -> str:
    """A new session; returns its token, which is not kept."""
    token, now = new_token(), clock.now()
    session.add(
        UserSession(
            token_hash=token_hash(token), user_id=user_id, created_at=now, expires_at=now + SESSION_LIFE
        )
    )
    return token


async def sign_out(session: AsyncSession, token: str) -> None:
    """End the session of this token."""
    await session.execute(delete(UserSession).where(UserSession.token_hash == token_hash(token)))


async def by_token(session: AsyncSession, token: str) -> tuple[User, bool] | None:
    """Who is signed in with this token, and whether it is time to `prolong` the session."""
    now = clock.now()
    query = (
        select(User, UserSession.expires_at)
        .join(UserSession, UserSession.user_id == User.id)
        .where(UserSession.token_hash == token_hash(token), UserSession.expires_at > now, User.is_active)
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row[0], row[1] < now + SESSION_LIFE - _SLIDE)


async def prolong(session: AsyncSession, token: str) -> None:
    """Let the session live on from now."""
    await session.execute(
        update(UserSession)
        .where(UserSession.token_hash == token_hash(token))
        .values(expires_at=clock.now() + SESSION_LIFE)
    )


async def set_role(session: AsyncSession, user_id: int, role: Role) -> bool:
    """Give somebody a role; False if there is no such user."""
    return changed(await session.execute(update(User).where(User.id == user_id).values(role=role.value))) == 1


async def set_active(session: AsyncSession, user_id: int, *, active: bool) -> bool:
    """Let somebody in, or no more: then their sessions end. False if there is no such user."""
    if not active:
        await session.execute(delete(UserSession).where(UserSession.user_id == user_id))
    return (
        changed(await session.execute(update(User).where(User.id == user_id).values(is_active=active))) == 1
    )


async def admins(session: AsyncSession) -> list[int]:
    """The ids of the admins."""
    query = select(User.id).where(User.role == Role.ADMIN, User.is_active).order_by(User.id)
    return list(await session.scalars(query))


async def new_reset(session: AsyncSession, user_id: int) -> str:
    """A token that may set a new password once, for 20 minutes."""
    token, now = new_token(), clock.now()
    session.add(
        PasswordReset(
            token_hash=token_hash(token), user_id=user_id, created_at=now, expires_at=now + RESET_LIFE
        )
    )
    return token


async def reset_holds(session: AsyncSession, token: str) -> bool:
    """Whether this token could be used now. Spares the hashing of a password for those that can't."""
    return await session.scalar(select(PasswordReset.user_id).where(_usable(token))) is not None


async def reset_password(session: AsyncSession, token: str, password_hash: str) -> None:
    """Use the token: new password, every session of the user ended, every other link void.

    Raises:
        ResetRefused: it does not hold; of two who use it at once, one gets this.
    """
    now = clock.now()
    used = update(PasswordReset).where(_usable(token)).values(used_at=now).returning(PasswordReset.user_id)
    user_id = await session.scalar(used)
    if user_id is None:
        raise ResetRefused
    await session.execute(update(User).where(User.id == user_id).values(password_hash=password_hash))
    await session.execute(delete(UserSession).where(UserSession.user_id == user_id))
    await session.execute(
        update(PasswordReset)
        .where(PasswordReset.user_id == user_id, PasswordReset.used_at.is_(None))
        .values(used_at=now)
    )


async def cleanup(session: AsyncSession) -> int:
    """Forget sessions and reset links whose time is over; returns how many sessions that were."""
    now = clock.now()
    await session.execute(delete(PasswordReset).where(PasswordReset.expires_at <= now))
    return changed(await session.execute(delete(UserSession).where(UserSession.expires_at <= now)))


def _usable(token: str) -> ColumnElement[bool]:
    return (
        (PasswordReset.token_hash == token_hash(token))
        & PasswordReset.used_at.is_(None)
        & (PasswordReset.expires_at > clock.now())
    )
