"""One row for each recipient of a run that sends to many.

An attempt claims rows before it calls the provider, and writes under its own token what came of them. Whoever
else claims meanwhile (a copy of the run, a worker that was cut off and has come back) gets other rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import null

from errands.core import clock
from errands.core.deliveries import Delivery, DeliveryState, Recipient, Totals
from errands.core.states import FINAL
from errands.store.opt_outs import opted_out
from errands.store.tables import deliveries, runs

State = DeliveryState
_COLUMNS = tuple(deliveries.c[name] for name in Delivery.__dataclass_fields__)
_CHUNK = 500
LEFT = "its worker ended while it was under way"


def count(connection: Connection, run_id: str) -> int:
    """How many rows a run has."""
    query = select(func.count()).where(deliveries.c.run_id == run_id)
    return connection.scalar(query) or 0


def add(
    connection: Connection, run_id: str, channel: str, topic: str, first: int, recipients: Sequence[Recipient]
) -> None:
    """Write the next recipients of a run; `first` is the position of the first of them. Positions that are
    taken are left as they are. Who is in the run already, or has opted out, is skipped."""
    wanted = [each.address for each in recipients if each.skip is None]
    there = set(
        connection.scalars(
            select(deliveries.c.address).where(
                deliveries.c.address.in_(wanted), deliveries.c.run_id == run_id, deliveries.c.position < first
            )
        )
    )
    out = opted_out(connection, channel, wanted, topic)
    now, rows = clock.now(), []
    for position, each in enumerate(recipients, start=first):
        reason = each.skip
        if reason is None and each.address in there:
            reason = "in the list already"
        elif reason is None and each.address in out:
            reason = "opted out"
        if each.skip is None:
            there.add(each.address)
        rows.append(
            {
                "run_id": run_id, "position": position, "channel": channel, "topic": topic,
                "address": each.address, "person": each.person, "data": each.data,
                "state": State.QUEUED.value if reason is None else State.SKIPPED.value,
                "reason": reason, "tries": 0, "at": now,
            }
        )  # fmt: skip
    if rows:
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(deliveries).on_conflict_do_nothing(), rows)


def take_over(connection: Connection, run_id: str, token: str, *, all_due: bool = False) -> Totals:
    """An attempt begins. What another one was at when it ended is unknown from now on; what is due again is
    queued.

    Args:
        token: of the attempt that begins.
        all_due: all that is deferred is due.

    Returns:
        How many are in each state then.
    """
    now, of_run = clock.now(), deliveries.c.run_id == run_id
    connection.execute(
        update(deliveries)
        .where(of_run, deliveries.c.state == State.SENDING.value, deliveries.c.token != token)
        .values(state=State.UNKNOWN.value, reason=LEFT, at=now)
    )
    due = [deliveries.c.state == State.DEFERRED.value]
    if not all_due:
        due.append(deliveries.c.retry_at <= now)
    connection.execute(
        update(deliveries).where(of_run, *due).values(state=State.QUEUED.value, retry_at=null())
    )
    return totals(connection, run_id)


def claim(connection: Connection, run_id: str, token: str, most: int) -> list[Delivery]:
    """Mark up to `most` queued rows as being sent by the attempt of that token, and return them."""
    queued = [deliveries.c.run_id == run_id, deliveries.c.state == State.QUEUED.value]
    # Two statements: PostgreSQL may carry a subquery with LIMIT out more than once.
    free = select(deliveries.c.position).where(*queued).order_by(deliveries.c.position).limit(most)
    positions = list(connection.scalars(free.with_for_update(skip_locked=True)))
    claimed = (
        update(deliveries)
        .where(*queued, deliveries.c.position.in_(positions))
        .values(
            state=State.SENDING.value, token=token, tries=deliveries.c.tries + 1, reason=null(),
            at=clock.now(),
        )
        .returning(*_COLUMNS)
    )  # fmt: skip
    rows = [_row(found) for found in connection.execute(claimed).mappings()]
    return sorted(rows, key=lambda row: row.position)


_SETTLE = (
    update(deliveries)
    .where(
        deliveries.c.run_id == bindparam("its_run"),
        deliveries.c.position == bindparam("its_position"),
        deliveries.c.token == bindparam("its_token"),
        # Another attempt took it for lost, and whoever was at it knows better.
        or_(deliveries.c.state == State.SENDING.value, deliveries.c.state == State.UNKNOWN.value),
    )
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("state", "reason", "provider_id", "tries", "retry_at", "at")
        }
    )
)


def settle(connection: Connection, token: str, rows: Sequence[tuple[Delivery, Mapping[str, Any]]]) -> None:
    """Write what became of rows that the attempt of that token has claimed: for each `state`, `reason`,
    `provider_id`, `tries` and `retry_at`."""
    now = clock.now()
    if rows:
        connection.execute(
            _SETTLE,
            [
                {"its_run": row.run_id, "its_position": row.position, "its_token": token, "new_at": now}
                | {f"new_{name}": value for name, value in values.items()}
                for row, values in rows
            ],
        )


def totals(connection: Connection, run_id: str) -> Totals:
    """How many recipients of a run are in each state."""
    query = select(deliveries.c.state, func.count().label("many")).where(deliveries.c.run_id == run_id)
    found = connection.execute(query.group_by(deliveries.c.state))
    return Totals({row.state: row.many for row in found})


def next_retry(connection: Connection, run_id: str) -> datetime | None:
    """When the first of the deferred ones is due."""
    query = select(deliveries.c.retry_at).where(
        deliveries.c.run_id == run_id, deliveries.c.state == State.DEFERRED.value
    )
    return connection.scalar(query.order_by(deliveries.c.retry_at).limit(1))


def page(
    connection: Connection, run_id: str, after: int, limit: int, states: Collection[DeliveryState] = ()
) -> list[Delivery]:
    """Up to `limit` rows behind the position `after`, in their order; those in `states`, or all."""
    where: list[ColumnElement[bool]] = [deliveries.c.run_id == run_id, deliveries.c.position > after]
    if states:
        where.append(deliveries.c.state.in_([state.value for state in states]))
    query = select(*_COLUMNS).where(*where).order_by(deliveries.c.position).limit(limit)
    return [_row(found) for found in connection.execute(query).mappings()]


def requeue(connection: Connection, run_id: str, states: Collection[DeliveryState]) -> int:
    """Queue those in `states` once more, as if they had never been tried. Returns how many."""
    again = (
        update(deliveries)
        .where(
            deliveries.c.run_id == run_id,
            deliveries.c.state.in_([state.value for state in states]),
            deliveries.c.address.is_not(None),
        )
        .values(
            state=State.QUEUED.value, tries=0, reason=null(), provider_id=null(), retry_at=null(),
            token=null(), at=clock.now(),
        )
    )  # fmt: skip
    return connection.execute(again).rowcount


def erase(connection: Connection, *, person: str | None, run_ids: Sequence[str], address: str | None) -> int:
    """Clear addresses and data: of a person, of whole runs, of an address. What was not sent yet never is.
    Returns how many rows that were."""
    erased = 0
    named = [
        *([deliveries.c.person == person] if person is not None else []),
        *([deliveries.c.address == address] if address is not None else []),
    ]
    of_runs = [
        deliveries.c.run_id.in_(run_ids[start : start + _CHUNK]) for start in range(0, len(run_ids), _CHUNK)
    ]
    for where in [*([or_(*named)] if named else []), *of_runs]:
        # A reason may quote the address.
        connection.execute(update(deliveries).where(where).values(reason=null()))
        unsent = deliveries.c.state.in_([State.QUEUED.value, State.DEFERRED.value])
        connection.execute(
            update(deliveries)
            .where(where, unsent)
            .values(state=State.SKIPPED.value, reason="erased", retry_at=null())
        )
        cleared = update(deliveries).where(
            where, or_(deliveries.c.address.is_not(None), deliveries.c.person.is_not(None))
        )
        erased += connection.execute(
            cleared.values(address=null(), person=null(), data=null(), provider_id=null())
        ).rowcount
    return erased


def prune(connection: Connection, older_than: timedelta, *, limit: int = 1000) -> int:
    """Delete up to `limit` rows of runs that ended longer than `older_than` ago. Returns how many."""
    old = (
        select(deliveries.c.run_id, deliveries.c.position)
        .join(runs, runs.c.id == deliveries.c.run_id)
        .where(runs.c.state.in_([state.value for state in FINAL]))
        .where(runs.c.finished_at < clock.now() - older_than)
        .limit(limit)
    )
    keys = [tuple(row) for row in connection.execute(old)]
    if keys:
        key = tuple_(deliveries.c.run_id, deliveries.c.position)
        for start in range(0, len(keys), _CHUNK):
            connection.execute(delete(deliveries).where(key.in_(keys[start : start + _CHUNK])))
    return len(keys)


def _row(values: Any) -> Delivery:
    return Delivery(**{**values, "state": State(values["state"])})
