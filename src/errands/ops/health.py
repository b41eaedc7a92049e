"""Is everything well, and if not, why: in words that name the thing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from errands.core import clock
from errands.core.errors import BrokerUnavailable
from errands.ops import probes, queues
from errands.ops.errors import RecordUnavailable
from errands.ops.host import App
from errands.store import summaries

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"
_WORST_LAST = (HEALTHY, DEGRADED, UNHEALTHY)
_DAY = timedelta(hours=24)


@dataclass(slots=True)
class Health:
    """The parts and the whole, each `healthy`, `degraded` (work goes on, something is wrong) or `unhealthy`
    (work does not go on).

    `why` says what is wrong, a sentence each; `notes` what people should look at though all is well.
    """

    overall: str = HEALTHY
    celery: str = HEALTHY
    redis: str = HEALTHY
    database: str = HEALTHY
    beat: str = HEALTHY
    workers: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tell(self, part: str, how: str, why: str) -> None:
        """Say that `part` is `how`, and why. The whole is as bad as its worst part."""
        setattr(self, part, max(getattr(self, part), how, key=_WORST_LAST.index))
        self.overall = max(self.overall, how, key=_WORST_LAST.index)
        self.why.append(why)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check(app: App) -> Health:
    """Look at everything. Raises nothing: what does not answer is told in the result."""
    health = Health(queues=app.queue_names)
    if not probes.database_answers(app):
        health.tell("database", UNHEALTHY, "The database does not answer, or has no tables yet.")
    if app.settings.inline:
        health.notes.append("Inline mode: runs happen in the process that starts them; there are no workers.")
        return health
    try:
        _broker(app, health)
        if health.database == HEALTHY:
            _record(app, health)
    except BrokerUnavailable as exc:
        health.celery = health.beat = UNHEALTHY
        health.tell("redis", UNHEALTHY, f"{_sentence(str(exc))} Nothing can be sent or started.")
    except RecordUnavailable:  # it answered a moment ago
        health.tell("database", UNHEALTHY, "The database does not answer.")
    return health


def _broker(app: App, health: Health) -> None:
    problem = probes.eviction_problem(app)
    if problem is not None:
        health.tell("redis", DEGRADED, _sentence(problem))
    live = probes.live_workers(app)
    health.workers = sorted(live)
    if not live:
        health.tell("celery", UNHEALTHY, "No worker is alive: what is sent waits.")
    depths = queues.depths(app)
    for name in sorted(queues.paused(app)):
        found = depths.get(name)
        waiting = f" {found.depth} messages wait in it." if found and found.depth else ""
        health.notes.append(f"The queue {name!r} is paused.{waiting}")
    if live:
        for name in probes.unread_queues(app, live, depths):
            found = depths.get(name)
            waiting = f" {found.depth} messages wait in it." if found and found.depth else ""
            health.tell("celery", DEGRADED, f"No live worker reads the queue {name!r}.{waiting}")
    if not probes.beat_leads(app):
        health.tell(
            "beat",
            DEGRADED,
            "No beat is alive: schedules do not fire, and the ledger does not follow.",
        )


def _record(app: App, health: Health) -> None:
    lag = probes.ledger_lag(app)
    if lag.too_far:
        health.tell("beat", DEGRADED, f"The ledger is {lag} behind.")
    if lag.missing_at is not None and clock.now() - lag.missing_at < _DAY:
        health.tell(
            "beat",
            DEGRADED,
            f"The event stream dropped {lag.missing} events before the ledger had them, the last ones at "
            f"{lag.missing_at:%Y-%m-%d %H:%M} UTC: what it says of their runs may be old.",
        )
    with probes.record_errors(), app.database.reading() as connection:
        letters = summaries.new_dead_letters(connection, clock.now() - _DAY)
    if letters:
        health.notes.append(f"{letters} dead letters came in the last 24 hours: see /api/dead-letters.")


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
