"""What the ledger and the outbox know of the members of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Text, cast, func, select

from errands.core.batches import BATCH_TASK, MOST_FAILED_IDS
from errands.core.states import FINAL, OPEN, State
from errands.store.tables import outbox, runs

_FINAL = sorted(state.value for state in FINAL)
_OPEN = sorted(state.value for state in OPEN)
_SUCCEEDED = State.SUCCEEDED.value


@dataclass(frozen=True, slots=True)
class Members:
    """Members of one batch: runs that have it as parent, and rows of the outbox that name it.

    Args:
        durable: those in the outbox that have not ended: they will be sent until they do.
        others: those that have not ended, and of which the ledger alone knows.
        succeeded, failed: how many have ended.
        failed_ids: the first of those that did not succeed.
        told: how many there were when the batch told its progress last.
    """

    durable: frozenset[str]
    others: frozenset[str]
    succeeded: int
    failed: int
    failed_ids: tuple[str, ...]
    told: int

    @property
    def total(self) -> int:
        """How many are known."""
        return self.succeeded + self.failed + len(self.durable) + len(self.others)


def members(connection: Connection, batch_id: str) -> Members:
    """What is known of a batch's members.

    The outbox is read first: a row goes with the end of its run, which the ledger has by then. And a member
    that was sent by another one is in the ledger before that one's end is.
    """
    waiting = dict(_in_outbox(connection, batch_id))
    of_batch = runs.c.parent_id == batch_id
    open_ids = set(connection.scalars(select(runs.c.id).where(of_batch, runs.c.state.in_(_OPEN))))
    counted = select(runs.c.state, func.count()).where(of_batch, runs.c.state.in_(_FINAL))
    ended: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted.group_by(runs.c.state))}
    failed = select(runs.c.id).where(of_batch, runs.c.state.in_(_FINAL), runs.c.state != _SUCCEEDED)
    failed_ids = connection.scalars(failed.order_by(runs.c.finished_at, runs.c.id).limit(MOST_FAILED_IDS))
    progress: Any = connection.scalar(select(runs.c.progress).where(runs.c.id == batch_id))
    succeeded = ended.pop(_SUCCEEDED, 0)
    return Members(
        durable=frozenset(run_id for run_id, state in waiting.items() if state not in _FINAL),
        others=frozenset(open_ids - waiting.keys()),
        succeeded=succeeded,
        failed=sum(ended.values()),
        failed_ids=tuple(failed_ids),
        told=int((progress or {}).get("total") or 0),
    )


def unfinished_below(connection: Connection, batch_id: str) -> list[str]:
    """Runs below the members of a batch that have not succeeded, as far as the ledger knows, and that the
    outbox does not look after."""
    tree = select(runs.c.id).where(runs.c.parent_id == batch_id).cte("below", recursive=True)
    tree = tree.union(select(runs.c.id).join(tree, runs.c.parent_id == tree.c.id))
    query = (
        select(runs.c.id)
        .join(tree, runs.c.id == tree.c.id)
        .where(runs.c.parent_id != batch_id, runs.c.state != _SUCCEEDED)
        .where(runs.c.id.not_in(select(outbox.c.id)))
    )
    return list(connection.scalars(query))


def open_batches(connection: Connection, after_id: str, before: datetime, limit: int) -> list[str]:
    """The next batches, by id, that have not ended as far as the ledger knows, were made before `before`, and
    are not in the outbox."""
    query = (
        select(runs.c.id)
        .where(runs.c.task == BATCH_TASK, runs.c.state.in_(_OPEN))
        .where(runs.c.id > after_id, runs.c.created_at < before)
        .where(runs.c.id.not_in(select(outbox.c.id)))
        .order_by(runs.c.id)
        .limit(limit)
    )
    return list(connection.scalars(query))


def still_open(connection: Connection, batch_id: str) -> bool:
    """Whether the ledger does not know of the batch's end."""
    query = select(runs.c.id).where(runs.c.id == batch_id, runs.c.state.in_(_OPEN))
    return connection.scalar(query) is not None


def _in_outbox(connection: Connection, batch_id: str) -> list[tuple[str, str | None]]:
    named = cast(outbox.c.options, Text).contains(f'"{batch_id}"', autoescape=True)
    query = (
        select(outbox.c.id, outbox.c.options, runs.c.state)
        .select_from(outbox.outerjoin(runs, runs.c.id == outbox.c.id))
        .where(named)
    )
    rows = connection.execute(query)
    return [(row.id, row.state) for row in rows if (row.options or {}).get("batch") == batch_id]
