"""What the tables hold of one person: found by owner and subject, and cleared so that it still counts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Text, cast, delete, or_, select, update
from sqlalchemy.sql import null

from errands.core.states import OPEN
from errands.store.payloads import Kept
from errands.store.rows import OutboxRow
from errands.store.tables import (
    attempts,
    checkpoints,
    dead_letters,
    effects,
    outbox,
    payloads,
    runs,
)

_CHUNK = 500


def run_ids(connection: Connection, person: str) -> list[str]:
    """The runs that belong to a person or are about them."""
    query = select(runs.c.id).where(or_(runs.c.owner == person, runs.c.subject == person))
    return list(connection.scalars(query.order_by(runs.c.id)))


def open_run_ids(connection: Connection, person: str) -> list[str]:
    """Those of them that have not ended, as far as the ledger knows."""
    query = select(runs.c.id).where(
        or_(runs.c.owner == person, runs.c.subject == person),
        runs.c.state.in_([state.value for state in OPEN]),
    )
    return list(connection.scalars(query.order_by(runs.c.id)))


def unsent(connection: Connection, person: str, tasks: Sequence[str]) -> list[OutboxRow]:
    """Runs in the outbox that may concern a person: theirs, all of `tasks`, and what says that it is about
    somebody. They were not sent yet."""
    says_so = cast(outbox.c.options, Text).contains('"subject"', autoescape=True)
    query = select(outbox).where(
        outbox.c.sent_at.is_(None), or_(outbox.c.owner == person, outbox.c.task.in_(tasks), says_so)
    )
    return [OutboxRow(**row._mapping) for row in connection.execute(query)]


def clear(connection: Connection, ids: Sequence[str]) -> tuple[int, list[Kept]]:
    """Clear the content of runs: arguments, results, progress, errors, whose they are, their dead letters.

    Returns:
        How many dead letters there were, and the payloads whose content is in a store of the app's own.
    """
    letters, elsewhere = 0, []
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        connection.execute(
            update(runs)
            .where(runs.c.id.in_(some))
            .values(
                args=null(), kwargs=null(), message=null(), result=null(), progress=null(), owner=null(),
                subject=null(), error_message=null(), error_traceback=null(),
            )
        )  # fmt: skip
        connection.execute(
            update(attempts)
            .where(attempts.c.run_id.in_(some))
            .values(error_message=null(), error_traceback=null())
        )
        # That it was done stays, or somebody might do it again.
        connection.execute(
            update(effects).where(effects.c.run_id.in_(some)).values(result=null(), error=null())
        )
        connection.execute(delete(checkpoints).where(checkpoints.c.run_id.in_(some)))
        connection.execute(delete(outbox).where(outbox.c.id.in_(some)))
        query = select(payloads.c.key, payloads.c.run_id, payloads.c.content.is_(None))
        kept = [Kept(*row) for row in connection.execute(query.where(payloads.c.run_id.in_(some)))]
        elsewhere += [each for each in kept if each.elsewhere]
        connection.execute(delete(payloads).where(payloads.c.run_id.in_(some)))
        letters += connection.execute(delete(dead_letters).where(dead_letters.c.run_id.in_(some))).rowcount
    return letters, elsewhere
