"""Taking from a limit in the middle of a run: `run.allow`."""

from __future__ import annotations

import json
from urllib.parse import quote

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.streams.scripts import Script
from errands.core.limits import RATE, Bound

_TAKE = Script("limits", "allow")
_MICRO = 1_000_000


def take(client: Client, keys: Keys, name: str, count: int, bound: Bound) -> tuple[int, float]:
    """Take `count` from the rate `name`, all or nothing, by the server's clock.

    Args:
        client, keys: where it is kept.
        name: the limit's, as it was declared.
        count: how much. Where the limit was lowered below that while running, all of the limit is taken.
        bound: the limit as it is declared.

    Returns:
        How much was given, and 0; or 0, and the seconds after which to ask again.

    Raises:
        redis.RedisError: Valkey does not answer.
    """
    rule = [suffix_of(name), count, bound.most, bound.seconds * _MICRO]
    given, ms = _TAKE.run(client, keys.prefix, json.dumps(rule))
    return int(given), int(ms) / 1000


def suffix_of(name: str) -> str:
    """What tells the limit's keys in Valkey from others: the same as for tasks that share it by `name`."""
    return f"{RATE}:{quote(name, safe='')}:"
