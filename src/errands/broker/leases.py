"""A worker process holds a lease while it lives; a run that it works on is nobody else's."""

from __future__ import annotations

import uuid

from errands.broker.client import Client
from errands.broker.keys import Keys

SECONDS = 20  # four heartbeats

_holder = ""


def take(name: str) -> str:
    """Name the holder of this process, for the processes that are forked from it as well.

    Each start is a holder of its own: a worker that comes back under the same name has not kept what it held.
    """
    global _holder
    _holder = f"{name}/{uuid.uuid4().hex[:12]}"
    return _holder


def holder() -> str:
    """The holder that this process works for; empty outside of workers."""
    return _holder


def renew(client: Client, keys: Keys) -> None:
    """Hold on for another `SECONDS`."""
    if _holder:
        client.set(keys.lease(_holder), 1, ex=SECONDS)


def release(client: Client, keys: Keys) -> None:
    """Let go: whatever is still unfinished may start elsewhere at once."""
    if _holder:
        client.delete(keys.lease(_holder))
