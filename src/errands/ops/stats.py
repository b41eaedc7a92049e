"""The last 24 hours in numbers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from errands.core import clock
from errands.core.states import State
from errands.ops import probes, queues
from errands.ops.host import App
from errands.store import reads


def last_day(app: App) -> dict[str, Any]:
    """Runs of the last 24 hours by what became of them, and what is going on now.

    Total = successful + failed (discarded ones among them) + revoked (and expired) + running + pending, the
    last being all that waits: queued, due later, between two attempts, or in the outbox.

    Raises:
        RecordUnavailable, BrokerUnavailable: a server does not answer.
    """
    with probes.record_errors(), app.database.reading() as connection:
        counts = reads.stats(connection, clock.now() - timedelta(hours=24))
        unsent = reads.outbox_length(connection)
    live = probes.live_workers(app)
    pending = counts[State.QUEUED] + counts[State.SCHEDULED] + counts[State.RETRYING] + unsent
    return {
        "total_tasks_24h": sum(counts.values()) + unsent,
        "successful_tasks_24h": counts[State.SUCCEEDED],
        "failed_tasks_24h": counts[State.FAILED] + counts[State.DISCARDED],
        "revoked_tasks_24h": counts[State.REVOKED] + counts[State.EXPIRED],
        "running_tasks_24h": counts[State.RUNNING],
        "pending_tasks_24h": pending,
        "workers": len(live),
        "active_tasks": sum(int(facts.get("active", 0)) for facts in live.values()),
        "queues": queues.as_dicts(app),
    }
