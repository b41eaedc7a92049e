"""Counts over the ledger that monitoring asks for."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from errands.core.states import State
from errands.store.tables import dead_letters, runs


def finished(connection: Connection, since: datetime) -> dict[State, int]:
    """How many runs ended since then, by their final state."""
    query = select(runs.c.state, func.count()).where(runs.c.finished_at >= since).group_by(runs.c.state)
    return {State(state): count for state, count in connection.execute(query)}


def new_dead_letters(connection: Connection, since: datetime) -> int:
    """How many dead letters came since then and were not sent again."""
    query = select(func.count()).select_from(dead_letters)
    query = query.where(dead_letters.c.at >= since, dead_letters.c.replayed_at.is_(None))
    return connection.scalar(query) or 0
