"""Which worker reads which queues, as `--worker` says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from errands.doors.local.errors import LocalRunError

# `errands worker` then picks by the queues: 100 where tasks wait, a process for each core where they compute.
BY_QUEUES = 0
THE_REST = "*"
FORM = re.compile(r"(?P<name>[A-Za-z0-9_-]+)[=:](?P<queues>[^\s:=]+)(?::(?P<concurrency>[1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Worker:
    """A worker process to start: its queues, and how many tasks it runs at a time."""

    name: str
    queues: tuple[str, ...]
    concurrency: int = BY_QUEUES


def parse_worker(text: str) -> Worker:
    """Reads `NAME=queue,queue:CONCURRENCY`; the queue `*` stands for all that no other worker reads.

    >>> parse_worker("io=emails,progress:2")
    Worker(name='io', queues=('emails', 'progress'), concurrency=2)
    """
    match = FORM.fullmatch(text)
    if match is None:
        raise LocalRunError(f"--worker is written NAME=queue,queue:CONCURRENCY, not {text!r}.")
    queues = tuple(queue for queue in match["queues"].split(",") if queue)
    return Worker(match["name"], queues, int(match["concurrency"] or BY_QUEUES))


def default_workers(queues: Mapping[str, Sequence[str]]) -> list[Worker]:
    """One worker for each kind of queue: work that waits goes side by side on one event loop, work that
    computes one by one in a process of its own, so that a small machine stays usable."""
    concurrency = {"io": BY_QUEUES, "cpu": 1}
    return [Worker(kind, tuple(names), concurrency[kind]) for kind, names in queues.items() if names]


def assign(workers: Sequence[Worker], declared: Iterable[str]) -> list[Worker]:
    """The workers with real queue names.

    LocalRunError for a queue that the application does not declare, and for two workers of one name.
    """
    known = sorted(set(declared))
    names = [worker.name for worker in workers]
    for name in names:
        if names.count(name) > 1:
            raise LocalRunError(f"Two workers are called {name}; give each --worker a name of its own.")
    named = {queue for worker in workers for queue in worker.queues} - {THE_REST}
    if unknown := sorted(named - set(known)):
        raise LocalRunError(
            f"No task uses the queue {unknown[0]!r}; the application declares: {', '.join(known)}."
        )
    rest = tuple(queue for queue in known if queue not in named)
    assigned = [
        replace(worker, queues=tuple(q for q in worker.queues if q != THE_REST) + rest)
        if THE_REST in worker.queues
        else worker
        for worker in workers
    ]
    return [worker for worker in assigned if worker.queues]


def unread(workers: Sequence[Worker], declared: Iterable[str]) -> list[str]:
    """The declared queues that none of these workers reads."""
    read = {queue for worker in workers for queue in worker.queues}
    return sorted(set(declared) - read)
