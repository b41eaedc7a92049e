"""Passwords and tokens: hashed, compared, never kept."""

from __future__ import annotations

import asyncio
import hashlib
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

# Argon2id as OWASP's password storage cheat sheet has it (19 MiB, 2 passes, 1 lane): each sign-in holds that
# much memory, for some 20 ms.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_of_nobody: str | None = None
NONE_YET = ""  # of whoever was entered by others, and sets a password by the link for a forgotten one


def use(hasher: PasswordHasher) -> PasswordHasher:
    """Hash with `hasher` from now on; returns the one before. For tests, which need no strong hashes."""
    global _hasher, _of_nobody
    before, _hasher, _of_nobody = _hasher, hasher, None
    return before


def hash_now(password: str) -> str:
    """The hash to keep. Takes the processor for a while: see `hash_password`."""
    return _hasher.hash(password)


async def hash_password(password: str) -> str:
    """The hash to keep, worked out in a thread."""
    return await asyncio.to_thread(hash_now, password)


async def matches(password: str, password_hash: str | None) -> bool:
    """Whether `password` is the one of `password_hash`. For None (nobody has this address) and `NONE_YET` it
    takes as long and is False, so that the time taken tells nothing."""
    return await asyncio.to_thread(_matches, password, password_hash)


def _matches(password: str, password_hash: str | None) -> bool:
    global _of_nobody
    if not password_hash and _of_nobody is None:
        _of_nobody = hash_now(secrets.token_urlsafe())
    try:
        _hasher.verify(password_hash or _of_nobody or "", password)
    except VerificationError:
        return False
    return bool(password_hash)


def new_token() -> str:
    """256 random bits as 43 characters that are safe in a link."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token: hex SHA-256. It is random and long, so no slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()
