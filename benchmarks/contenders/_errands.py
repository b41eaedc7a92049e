"""What the rows of Errands share."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.contender import Place

QUEUE = "benchmark"
PACKAGES = ("celery", "kombu", "redis", "hiredis", "msgspec", "greenlet")
QUEUES = (
    *(f"errands:q:{QUEUE}:{level}{front}" for level in ("high", "normal", "low") for front in ("", ":front")),
    f"errands:q:{QUEUE}:delayed",
)
RESULTS = "celery-task-meta-*"
# As many tasks at a time as keep a worker at work while the server answers others, empty or waiting.
BEST = ("--pool", "asyncio", "--processes", "2", "--concurrency", "200")


def worker(*options: str) -> Sequence[str]:
    """The command of `docs/running.md`."""
    return (
        "python",
        "-m",
        "errands",
        "worker",
        "--app",
        "benchmarks.programs.errands:app",
        "--loglevel",
        "WARNING",
        *options,
    )


def recorded(place: Place) -> bool:
    """Whether a beat leads, and its recorder has moved every event into the ledger."""
    from errands.broker.events import EventStream
    from errands.broker.keys import Keys
    from errands.store import writes
    from errands.store.engine import Database

    keys = Keys()
    # A beat leads once its tables are there.
    if not place.client.exists(keys.leader):
        return False
    database = Database(f"sqlite:///{place.home / 'errands.db'}")
    try:
        with database.reading() as connection:
            position = writes.read_position(connection, keys.events)
    finally:
        database.dispose()
    behind, _ = EventStream(place.client, keys.events).behind(position.entry_id, most=1)
    return behind == 0
