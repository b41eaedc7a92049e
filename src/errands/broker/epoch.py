"""Whether the server still knows what it was told: which start of it answers, and which runs it has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from errands.broker.client import Client
from errands.broker.keys import Keys

_WEEK = 7 * 24 * 3600


def server_start(client: Client) -> str:
    """A name for the server's present start: another one after each restart and each failover.

    What was not on disk then is gone. A server that was emptied while it ran keeps its name.
    """
    info: Any = client.info("server")
    return str(info["run_id"])


def unknown(client: Client, keys: Keys, run_ids: Sequence[str], old: Collection[str] = ()) -> list[str]:
    """Those of `run_ids` that the server does not know. One round trip.

    Args:
        old: those of them that have waited for so long that their live states might expire: they are kept
            for another week, so that one that is missing was lost.
    """
    with client.pipeline(transaction=False) as pipe:
        for run_id in run_ids:
            if run_id in old:
                pipe.expire(keys.run(run_id), _WEEK)
            else:
                pipe.exists(keys.run(run_id))
        found = pipe.execute()
    return [run_id for run_id, known in zip(run_ids, found, strict=True) if not known]
