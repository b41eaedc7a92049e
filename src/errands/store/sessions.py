"""The kinds of database session, by name: whoever only asks after them need not import SQLAlchemy.

It is a fifth of what a worker weighs, and many workers never touch a database.
"""

from __future__ import annotations

from typing import Any

SESSION = "sqlalchemy.orm.session.Session"
ASYNC_SESSION = "sqlalchemy.ext.asyncio.session.AsyncSession"


def is_session(kind: Any) -> bool:
    """Whether `kind`, an annotation, is SQLAlchemy's `Session` or `AsyncSession`."""
    return isinstance(kind, type) and f"{kind.__module__}.{kind.__qualname__}" in (SESSION, ASYNC_SESSION)
