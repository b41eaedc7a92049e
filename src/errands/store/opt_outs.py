"""Who wants nothing more on a channel: about one topic, or about any."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from errands.core import clock
from errands.core.deliveries import DeliveryState
from errands.store.tables import deliveries, opt_outs

ANY = ""  # topic
_CHUNK = 500


def opted_out(connection: Connection, channel: str, addresses: Collection[str], topic: str) -> set[str]:
    """Those of `addresses` that want nothing about `topic`."""
    found: set[str] = set()
    wanted = list(addresses)
    for start in range(0, len(wanted), _CHUNK):
        query = select(opt_outs.c.address).where(
            opt_outs.c.channel == channel,
            opt_outs.c.address.in_(wanted[start : start + _CHUNK]),
            opt_outs.c.topic.in_([ANY, topic]),
        )
        found.update(connection.scalars(query))
    return found


def add(connection: Connection, channel: str, address: str, topic: str, source: str | None) -> None:
    """Note that `address` wants nothing more; what waits to be sent to it is skipped."""
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    row = {"channel": channel, "address": address, "topic": topic, "at": clock.now(), "source": source}
    connection.execute(dialect.insert(opt_outs).on_conflict_do_nothing(), row)
    waits = [DeliveryState.QUEUED.value, DeliveryState.DEFERRED.value]
    about = [] if topic == ANY else [deliveries.c.topic == topic]
    connection.execute(
        update(deliveries)
        .where(deliveries.c.address == address, deliveries.c.channel == channel)
        .where(deliveries.c.state.in_(waits), *about)
        .values(state=DeliveryState.SKIPPED.value, reason="opted out", at=clock.now())
    )


def remove(connection: Connection, channel: str, address: str, topic: str) -> bool:
    """Forget it; whether there was anything. Without a topic, all of them."""
    gone = delete(opt_outs).where(opt_outs.c.channel == channel, opt_outs.c.address == address)
    if topic != ANY:
        gone = gone.where(opt_outs.c.topic == topic)
    return connection.execute(gone).rowcount > 0
