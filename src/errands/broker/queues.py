"""How deep queues are, and what is done to a queue as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.streams.scripts import DEPTH, PURGE, REMOVE_DELAYED

_PURGE_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How it stands with a queue.

    Args:
        depth: messages that wait and may start at once.
        oldest_s: seconds since the oldest of them was put or given back; None: unknown, or none waits.
        delayed: messages that are not due yet.
        held: messages that workers have taken and not finished.
        dead: dead letters that are kept.
        limited: of the messages that wait, those whose run waits for a limit: they start when it lets them.
    """

    depth: int
    oldest_s: float | None
    delayed: int = 0
    held: int = 0
    dead: int = 0
    limited: int = 0


def depths(client: Client, keys: Keys, names: list[str]) -> dict[str, QueueDepth]:
    """The depth of each queue in `names`. One round trip."""
    if not names:
        return {}
    reply: Any = DEPTH.run(client, keys.prefix, *names)
    found = {}
    for n, name in enumerate(names):
        waiting, oldest_ms, delayed, held, dead, limited = map(int, reply[6 * n : 6 * n + 6])
        oldest = oldest_ms / 1000 if oldest_ms >= 0 else None
        found[name] = QueueDepth(waiting, oldest, delayed, held, dead, limited)
    return found


def purge(client: Client, keys: Keys, queue: str) -> int:
    """Throw away what no worker was given yet, what is delayed or waits for a limit. Returns how many."""
    total = 0
    while gone := int(PURGE.run(client, keys.prefix, queue, _PURGE_AT_ONCE)):
        total += gone
    return total


def remove_delayed(client: Client, keys: Keys, queue: str, run_id: str) -> int:
    """Take a run's message out of the queue, delayed or waiting for a limit. Returns how many."""
    return int(REMOVE_DELAYED.run(client, keys.prefix, queue, run_id))
