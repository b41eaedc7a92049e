"""How `errands worker` runs: which pool suits the queues, one worker process or several under one parent."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from celery import Celery
from celery.exceptions import SecurityError
from celery.utils.nodenames import default_nodename, host_format

from errands import Errands
from errands.doors.cli.application import prefetch_for, queues_by_kind
from errands.doors.cli.supervisor import SUPERVISED
from errands.doors.local.errors import LocalRunError

ASYNCIO = "asyncio"
ASYNCIO_CLASS = "errands.worker.pool:TaskPool"
POOLS = (ASYNCIO, "prefork", "threads", "solo")
CONCURRENCY = 100  # of the asyncio pool: tasks that wait cost next to nothing


@dataclass(frozen=True)
class Pool:
    """A pool, how many tasks it runs at a time, and what the user should know of the choice."""

    name: str
    concurrency: int
    hint: str = ""

    @property
    def implementation(self) -> str:
        """As Celery's `worker_pool` wants it."""
        return ASYNCIO_CLASS if self.name == ASYNCIO else self.name


def choose_pool(app: Celery, queues: Sequence[str], pool: str = "", concurrency: int = 0) -> Pool:
    """The pool for a worker of these queues: asyncio where tasks wait, processes where they compute.

    Args:
        pool: the user's choice; empty to choose by the queues.
        concurrency: the user's choice; 0 for the pool's own.

    Raises:
        LocalRunError: there is no pool of that name.
    """
    hint = ""
    configured = str(app.conf.worker_pool or "prefork")
    if not pool and configured != "prefork":
        return Pool(configured, concurrency or CONCURRENCY)
    if not pool and isinstance(app, Errands):
        cpu = set(queues_by_kind(app)["cpu"])
        computing = [queue for queue in queues if queue in cpu]
        pool = "prefork" if computing else ASYNCIO
        if computing and len(computing) < len(queues):
            hint = (
                f"{', '.join(computing)} hold work that computes, so all of this worker's queues run in "
                "processes; give them a worker of their own, and the rest runs side by side on one event loop"
            )
    pool = pool or "prefork"  # of a plain Celery application nothing else is known
    if pool not in POOLS:
        raise LocalRunError(f"There is no pool {pool!r}; choose one of: {', '.join(POOLS)}.")
    return Pool(pool, concurrency or (CONCURRENCY if pool == ASYNCIO else os.cpu_count() or 2), hint)


def become_supervisor(name: str, processes: int, arguments: Sequence[str]) -> NoReturn:
    """Go on as the parent of `processes` workers called `name-1`, `name-2` and so on; it keeps nothing of the
    application, which was loaded here to see that it can be."""
    sys.stdout.flush()
    sys.stderr.flush()
    program = [sys.executable, "-m", "errands.doors.cli.supervisor", name, str(processes), *arguments]
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


def run_worker(app: Celery, name: str, queues: Sequence[str], pool: Pool, level: str) -> int:
    """Run a worker in this process until it is told to stop.

    What `celery worker` does, without its command line: that brings a prompt and Flower along, ten megabytes.

    Returns:
        The exit status.

    Raises:
        LocalRunError: Celery refuses to run as this user.
    """
    app.conf.worker_pool = pool.implementation
    try:
        worker = app.Worker(
            hostname=host_format(default_nodename(f"{name}@%h")),
            queues=list(queues),
            concurrency=pool.concurrency,
            prefetch_multiplier=prefetch_for(app, list(queues)),
            loglevel=level,
            quiet=True,
        )
        worker.start()
    except SecurityError as error:
        raise LocalRunError(str(error)) from error
    return int(worker.exitcode or 0)


def end_with_parent() -> None:
    """A supervised worker does not outlive its supervisor."""
    if os.environ.pop(SUPERVISED, None):
        from celery.platforms import set_pdeathsig

        set_pdeathsig("SIGTERM")
