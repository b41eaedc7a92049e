"""`errands doctor`: looks at a system as somebody would who has seen it fail before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

import redis
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from errands.core import clock
from errands.core.errors import BrokerUnavailable
from errands.ops import probes, queues
from errands.ops.errors import RecordUnavailable
from errands.ops.host import App
from errands.store.migrate import current

_SKEW_SECONDS = 2.0


class Level(StrEnum):
    """How bad a finding is."""

    GOOD = "good"
    WARNING = "warning"  # work goes on; something will hurt later
    PROBLEM = "problem"  # work does not go on, or is lost


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, how bad it is, and what to do about it (empty when it is good)."""

    what: str
    level: Level = Level.GOOD
    advice: str = ""


def doctor(app: App) -> list[Finding]:
    """Look at the broker, the database, keys, workers, beat and clocks. Raises nothing."""
    checks: list[Callable[[App], Iterator[Finding]]] = [_keys, _database]
    if not app.settings.inline:
        checks += [_policy, _persistence, _clock, _workers, _beat, _ledger]
    findings: list[Finding] = []
    broker_away = False
    for check in checks:
        try:
            findings += check(app)
        except (BrokerUnavailable, redis.RedisError) as exc:
            if not broker_away:  # once is enough
                findings.append(
                    Finding(
                        f"the broker does not answer: {exc.__cause__ or exc}",
                        Level.PROBLEM,
                        "start it, or correct ERRANDS_BROKER_URL (ERRANDS_VALKEY_URL, where that differs)",
                    )
                )
            broker_away = True
    return findings


def _keys(app: App) -> Iterator[Finding]:
    if app.keyring:
        yield Finding("there is a key for secret arguments")
        return
    secret = sorted(
        name
        for name, task in app.tasks.items()
        if getattr(task, "function", None) is not None and task.arguments.secrets  # Celery's own have none
    )
    advice = "set ERRANDS_SECRET_KEYS; make a key with `python -m errands keys new`"
    if secret:
        yield Finding(
            f"no key is set, and tasks have secret arguments: {', '.join(secret)}", Level.PROBLEM, advice
        )
    else:
        yield Finding("no key for secret arguments and signed links", Level.WARNING, advice)


def _database(app: App) -> Iterator[Finding]:
    head = ScriptDirectory(str(files("errands.store") / "migrations")).get_current_head()
    try:
        with app.database.reading() as connection:
            revision = current(connection)
    except SQLAlchemyError as exc:
        yield Finding(
            f"the database does not answer: {getattr(exc, 'orig', None) or exc}",
            Level.PROBLEM,
            "start it, or correct ERRANDS_DATABASE_URL",
        )
        return
    if revision == head:
        yield Finding("the database answers, its tables are up to date")
    else:
        yield Finding(
            f"the database's tables are at {revision or 'nothing'}, this version needs {head}",
            Level.PROBLEM,
            "run `python -m errands db upgrade`",
        )


def _policy(app: App) -> Iterator[Finding]:
    problem = probes.eviction_problem(app)
    if problem is None:
        yield Finding("the broker throws nothing away (noeviction)")
    else:
        yield Finding(
            problem, Level.PROBLEM, "set `maxmemory-policy noeviction`, or use another server for caches"
        )


def _persistence(app: App) -> Iterator[Finding]:
    if app.valkey.info("persistence").get("aof_enabled"):
        yield Finding("the broker keeps an append-only file")
    else:
        yield Finding(
            "the broker keeps no append-only file: a crash of it loses what is queued",
            Level.WARNING,
            "set `appendonly yes` and `appendfsync everysec`",
        )


def _clock(app: App) -> Iterator[Finding]:
    with probes.broker_errors():
        seconds, micros = app.valkey.time()
    skew = clock.timestamp() - (int(seconds) + int(micros) / 1e6)
    if abs(skew) <= _SKEW_SECONDS:
        yield Finding("this machine's clock agrees with the broker's")
    else:
        where = "ahead of" if skew > 0 else "behind"
        yield Finding(
            f"this machine's clock is {abs(skew):.1f} s {where} the broker's",
            Level.WARNING,
            "keep the clocks right on all machines (NTP): times of runs and schedules come from them",
        )


def _workers(app: App) -> Iterator[Finding]:
    live = probes.live_workers(app)
    if not live:
        yield Finding(
            "no worker is alive: what is sent waits", Level.PROBLEM, "start one: `python -m errands worker`"
        )
        return
    yield Finding(f"{len(live)} live workers: {', '.join(sorted(live))}")
    depths = queues.depths(app)
    for name in sorted(queues.paused(app)):
        yield Finding(
            f"the queue {name!r} is paused",
            Level.WARNING,
            f"resume it when it may go on: POST …/queues/{name}/resume",
        )
    for name in probes.unread_queues(app, live, depths):
        waiting = depths[name].depth if name in depths else 0
        yield Finding(
            f"no live worker reads the queue {name!r}, in which {waiting} messages wait",
            Level.PROBLEM,
            f"start one that does: `python -m errands worker --queues {name}`",
        )


def _beat(app: App) -> Iterator[Finding]:
    if probes.beat_leads(app):
        yield Finding("a beat is alive")
    else:
        yield Finding(
            "no beat is alive: schedules do not fire, and the ledger does not follow",
            Level.PROBLEM,
            "start one: `python -m errands beat`",
        )


def _ledger(app: App) -> Iterator[Finding]:
    try:
        lag = probes.ledger_lag(app)
    except RecordUnavailable:  # told by _database
        return
    if lag.too_far:
        yield Finding(
            f"the ledger is {lag} behind",
            Level.WARNING,
            "see that a beat runs and that the database keeps up; nothing is lost while the event stream has "
            f"less than {app.settings.events_max} entries (ERRANDS_EVENTS_MAX)",
        )
    else:
        yield Finding("the ledger follows the event stream")
    if lag.missing:
        yield Finding(
            f"the event stream dropped {lag.missing} events before the ledger had them, the last ones at "
            f"{lag.missing_at:%Y-%m-%d %H:%M} UTC",
            Level.PROBLEM,
            "raise ERRANDS_EVENTS_MAX, and let no beat be down for so long; what the ledger says of runs of "
            "that time may be old",
        )
