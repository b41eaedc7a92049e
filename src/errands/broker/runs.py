"""The live state of every run, and the door through which every event goes.

One script writes an event and moves the run's state together, so that the two cannot disagree, and refuses
what may not happen: a finished run does not start again, a revoked one does not start at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any

from redis.commands.core import Script

from errands.broker import leases
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.core.events import Event, Kind
from errands.core.states import FINAL, MOVES, State

_RECORD = files("errands.broker").joinpath("lua/record.lua").read_text()

# What the live hash holds of an event, beside the state. All values are JSON.
_KEPT = (
    "task", "queue", "owner", "parent_id", "root_id", "args", "kwargs", "eta", "max_attempts", "worker",
    "result", "error", "progress", "note",
)  # fmt: skip
_TIME_OF = {Kind.QUEUED: "queued_at", Kind.STARTED: "started_at"}
_WEEK = 7 * 24 * 3600


class Verdict(StrEnum):
    """What the server said to an event."""

    OK = "ok"
    KNOWN = "known"
    REFUSED = "refused"
    STALE = "stale"
    RUNNING = "running"
    POISON = "poison"


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run as Valkey knows it now."""

    run_id: str
    state: State
    attempt: int
    hop: int
    facts: dict[str, Any]

    @property
    def final(self) -> bool:
        """True when the run has ended."""
        return self.state.final


class LiveRuns:
    """Records events and reads live states.

    Args:
        clients: connections to Valkey.
        keys: key names.
        result_expires: seconds that an ended run stays here; the ledger keeps it longer.
        events_max: entries that the stream may hold; past it the oldest are dropped.
        max_deliveries: workers that one message may take down.
    """

    def __init__(
        self,
        clients: Clients,
        keys: Keys,
        *,
        result_expires: int = 24 * 3600,
        events_max: int = 1_000_000,
        max_deliveries: int = 3,
    ) -> None:
        self._clients = clients
        self._keys = keys
        self._result_expires = result_expires
        self._events_max = events_max
        self._max_deliveries = max_deliveries
        # Sent by its digest; the whole text goes only to a server that does not know it yet.
        self._script = Script(clients.sync, _RECORD)

    def record(
        self,
        event: Event,
        *,
        hop: int = -1,
        redelivered: bool = False,
        copy: bool = False,
        time_limit: float = 0,
    ) -> tuple[Verdict, int]:
        """Write one event. One round trip.

        Args:
            event: what happened.
            hop: how often the message at hand was sent on (retries, snoozes); -1 when no message is at hand.
            redelivered: the broker says that it gave this message to a worker before.
            time_limit: seconds that an attempt may last at most; 0 when nobody knows.
            copy: the message is one that found its run in the hands of a live worker, and waited.

        Returns:
            The verdict, and the number of the run's present attempt.
        """
        state = event.state
        allowed: set[str] = {before or "none" for before in MOVES[state]} if state else set()
        if event.kind is Kind.REOPENED:
            allowed = {"none", *FINAL}
        final = state is not None and state.final
        wait = max(0, int((event.eta or 0) - event.at))
        values: list[Any] = [
            event.to_json(),
            event.kind.value,
            state.value if state else "",
            f",{','.join(sorted(allowed))},",
            self._result_expires if final else _WEEK + wait,
            self._events_max,
            hop,
            int(redelivered or copy),
            self._max_deliveries,
            leases.holder(),
            int(copy),
            self._keys.lease(""),
            time_limit,
            *_pairs(event, hop),
        ]
        keys = [self._keys.events, self._keys.run(event.run_id)]
        reply: Any = self._script(keys, values, self._clients.sync)
        verdict, attempt = reply
        return Verdict(verdict.decode()), int(attempt)

    def get(self, run_id: str) -> LiveRun | None:
        """The live state of a run; None when Valkey does not know it (any more)."""
        return _read(run_id, self._clients.sync.hgetall(self._keys.run(run_id)))

    def get_many(self, run_ids: list[str]) -> dict[str, LiveRun]:
        """The live states of those of `run_ids` that are known. One round trip."""
        with self._clients.sync.pipeline(transaction=False) as pipe:
            for run_id in run_ids:
                pipe.hgetall(self._keys.run(run_id))
            rows = pipe.execute()
        found = (_read(run_id, row) for run_id, row in zip(run_ids, rows, strict=True))
        return {run.run_id: run for run in found if run is not None}

    def known(self, run_id: str) -> bool:
        """Whether a run of this id was accepted and is not forgotten yet."""
        return bool(self._clients.sync.exists(self._keys.run(run_id)))


def facts_of(event: Event) -> dict[str, Any]:
    """What the live state of a run keeps of an event, beside the state itself."""
    facts = {name: value for name in _KEPT if (value := getattr(event, name)) is not None}
    if event.state is not None and event.state.final:
        facts["finished_at"] = event.at
    elif event.kind in _TIME_OF:
        facts[_TIME_OF[event.kind]] = event.at
    return facts


def _pairs(event: Event, hop: int) -> list[str]:
    pairs: list[str] = []
    if event.kind is Kind.REOPENED and event.attempt is not None:
        # The hash may be forgotten by now; attempts go on counting from what the ledger has.
        pairs += ["attempt", str(event.attempt)]
    if event.kind is Kind.REOPENED and hop >= 0:
        # A message of before may still wait in its queue: from now on it is stale.
        pairs += ["hop", str(hop)]
    for name, value in facts_of(event).items():
        pairs += [name, json.dumps(value, separators=(",", ":"))]
    return pairs


def _read(run_id: str, row: Any) -> LiveRun | None:
    if not row or b"state" not in row:
        return None
    facts = {name.decode(): value for name, value in row.items()}
    state = State(facts.pop("state").decode())
    attempt, hop = int(facts.pop("attempt", 0)), int(facts.pop("hop", 0))
    for own in ("deliveries", "lease", "begun"):
        facts.pop(own, None)
    return LiveRun(run_id, state, attempt, hop, {name: json.loads(value) for name, value in facts.items()})
