"""Taking the content of runs out of Valkey: of their live states, of the stream of events, of dead letters.

What counts stays: a run's task, queue, state, attempts and times. And its live state stays known, so that an
old message of it does not start again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.operations import SLOTS
from errands.core.events import Event

_PAGE = 1000


class _About(msgspec.Struct):
    run_id: str = ""


_about = msgspec.json.Decoder(_About).decode


def strip_states(client: Client, keys: Keys, run_ids: Sequence[str]) -> None:
    """Leave of live states what counts. Two round trips for a thousand runs.

    Args:
        run_ids: of runs that have ended, or whose state nobody changes meanwhile.
    """
    for start in range(0, len(run_ids), _PAGE):
        names = [keys.run(run_id) for run_id in run_ids[start : start + _PAGE]]
        with client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(name, *SLOTS)
            rows: list[Any] = pipe.execute()
        with client.pipeline(transaction=False) as pipe:
            for name, row in zip(names, rows, strict=True):
                left = {slot: _stripped(told) for slot, told in zip(SLOTS, row, strict=True) if told}
                if left:
                    pipe.hset(name, mapping=left)  # type: ignore[arg-type]
                    pipe.hdel(name, "checkpoint")
            pipe.execute()


def remove_events(client: Client, keys: Keys, run_ids: Collection[str], until: str) -> int:
    """Delete the events of runs, up to the entry `until`: the ledger has read those. Returns how many."""
    gone, wanted, after = 0, set(run_ids), "-"
    while True:
        rows: Any = client.xrange(keys.events, after, until, count=_PAGE)
        found = [entry for entry, fields in rows if _run_of(fields.get(b"e", b"")) in wanted]
        gone += int(client.xdel(keys.events, *found)) if found else 0
        if len(rows) < _PAGE:
            return gone
        after = f"({rows[-1][0].decode()}"


def remove_dead(client: Client, keys: Keys, queue: str, run_ids: Collection[str]) -> int:
    """Delete what a queue keeps of messages of these runs that nobody could be given. Returns how many."""
    gone, wanted, after = 0, set(run_ids), "-"
    while True:
        rows: Any = client.xrange(keys.dead(queue), after, "+", count=_PAGE)
        found = [entry for entry, fields in rows if _id_in(fields.get(b"m", b"")) in wanted]
        gone += int(client.xdel(keys.dead(queue), *found)) if found else 0
        if len(rows) < _PAGE:
            return gone
        after = f"({rows[-1][0].decode()}"


def _stripped(told: bytes) -> bytes:
    event = Event.from_json(told)
    error = {"type": event.error["type"]} if event.error and event.error.get("type") else None
    return Event(
        kind=event.kind, run_id=event.run_id, at=event.at, task=event.task, queue=event.queue, eta=event.eta,
        attempt=event.attempt, max_attempts=event.max_attempts, worker=event.worker, pid=event.pid,
        error=error, duration=event.duration, parent_id=event.parent_id, root_id=event.root_id,
    ).to_json()  # fmt: skip


def _run_of(told: bytes) -> str:
    try:
        return _about(told).run_id
    except (msgspec.MsgspecError, UnicodeError):
        return ""


def _id_in(raw: bytes) -> str:
    try:
        return str(json.loads(raw)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return ""
