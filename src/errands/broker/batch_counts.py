"""What Valkey counts of a batch of runs, and what is done to it: see `lua/batch.lua`.

Members are counted by the script that records their states; nothing here is needed for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from kombu.utils import json as kombu_json

from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.operations import Operation, Verdict
from errands.broker.runs import LiveRuns
from errands.core import clock
from errands.core.batches import BATCH_TASK, MOST_FAILED_IDS, BatchStatus
from errands.core.events import Event, Kind
from errands.core.states import State

_FIELDS = ("name", "state", "total", "succeeded", "failed", "open", "fault")


@dataclass(frozen=True, slots=True)
class FollowUps:
    """What follows a batch, made ready when the batch is made.

    Args:
        on_success, on_complete: operations that put messages into their queues; or signatures.
        later: they are signatures, for the beat to send: another broker, times that count from the sending.
    """

    on_success: Sequence[Any] = ()
    on_complete: Sequence[Any] = ()
    later: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """A batch that is to be opened.

    Args:
        id, name: of the batch.
        owner, parent_id, root_id: as of any run.
        follow_ups: what follows it.
        open_for: seconds of silence after which a batch whose members are still being sent is closed.
        expires: seconds of silence after which a batch is given up.
        closed: all of its members were sent already.
        rebuilt: the server had lost it: the beat counts it from the ledger.
        expected: with fewer members than this one it had lost some, and it is rebuilt too.
    """

    id: str
    name: str
    owner: str | None
    parent_id: str | None
    root_id: str
    follow_ups: FollowUps
    open_for: float
    expires: float
    closed: bool = False
    rebuilt: bool = False
    expected: int = 0

    def event(self) -> Event:
        """It is a run that begins."""
        return Event(
            kind=Kind.STARTED, run_id=self.id, at=clock.timestamp(), task=BATCH_TASK, owner=self.owner,
            parent_id=self.parent_id, root_id=self.root_id, args=[self.name], kwargs={}, max_attempts=1,
        )  # fmt: skip


class BatchCounts:
    """Opens, closes and reads the batches of an app.

    Args:
        clients: connections to Valkey.
        keys: key names.
        runs: commits, together with whatever else is to be said.
    """

    def __init__(self, clients: Clients, keys: Keys, runs: LiveRuns) -> None:
        self._clients = clients
        self._keys = keys
        self._runs = runs

    def open(self, batch: Opening, member_of: str | None = None) -> bool:
        """Open a batch, or, with an id that is known, open it once more. One round trip.

        Args:
            batch: what it is.
            member_of: another batch that this one is a member of.

        Returns:
            False where a batch of this id has ended already.

        Raises:
            redis.RedisError: the server did not take it.
        """
        follow_ups = batch.follow_ups
        facts = {
            "name": batch.name,
            "open": "" if batch.closed else "1",
            "open_for": batch.open_for,
            "expires": batch.expires,
            "later": "1" if follow_ups.later else "",
            "rebuilt": "1" if batch.rebuilt else "",
            "expected": batch.expected,
            "on_success": _json(follow_ups.on_success, follow_ups.later),
            "on_complete": _json(follow_ups.on_complete, follow_ups.later),
        }
        begins = self._runs.recording(batch.event(), hop=0)
        operations = [begins, _change("open", batch.id, facts)]
        if member_of is not None:
            asked = msgspec.json.encode({"batch": member_of}).decode()
            queued = msgspec.structs.replace(batch.event(), kind=Kind.QUEUED)
            operations.insert(0, self._runs.recording(queued, rules=asked))
        return self._runs.commit(operations)[-1].verdict is not Verdict.REFUSED

    def close(self, batch_id: str, fault: str = "") -> None:
        """All members were sent. `fault`: why the batch fails, whatever they do."""
        self._runs.commit([_change("close", batch_id, {"fault": fault})])

    def revoke(self, batch_id: str, note: str) -> bool:
        """Let nothing of the batch start any more. Returns False where it has ended already."""
        event = Event(kind=Kind.REVOKED, run_id=batch_id, at=clock.timestamp(), task=BATCH_TASK, note=note)
        change = _change("revoke", batch_id, {"fault": note})
        return self._runs.commit([change, self._runs.recording(event)])[0].verdict is Verdict.OK

    def give_up(self, batch_id: str) -> bool:
        """Close or end a batch of which nothing was heard for too long. Returns whether that was so."""
        return self._runs.commit([_change("give_up", batch_id, {})])[0].verdict is Verdict.OK

    def rebuilt(self) -> list[str]:
        """Batches that the server had lost, and that are counted from the ledger until they end."""
        found: Any = self._clients.sync.smembers(self._keys.batches_rebuilt)
        return sorted(batch_id.decode() for batch_id in found)

    def recount(self, counts: BatchStatus, *, over: bool) -> None:
        """Say what the ledger knows of a rebuilt batch. `over`: nothing more will end; the batch does."""
        facts = {
            "total": counts.total, "succeeded": counts.succeeded, "failed": counts.failed,
            "failed_ids": counts.failed_ids, "fault": counts.fault, "over": over,
        }  # fmt: skip
        self._runs.commit([_change("recount", counts.id, facts)])

    def gone(self, batch_ids: Sequence[str]) -> list[str]:
        """Those of `batch_ids` that the server does not know. One round trip."""
        with self._clients.sync.pipeline(transaction=False) as pipe:
            for batch_id in batch_ids:
                pipe.hget(self._keys.batch(batch_id), "state")
            found = pipe.execute()
        return [batch_id for batch_id, state in zip(batch_ids, found, strict=True) if not state]

    def batches_of(self, run_ids: Sequence[str]) -> dict[str, str]:
        """The batch of each run that the server knows; "" for one that is in none. One round trip."""
        with self._clients.sync.pipeline(transaction=False) as pipe:
            for run_id in run_ids:
                pipe.hmget(self._keys.run(run_id), "state", "batch")
            found = pipe.execute()
        known = zip(run_ids, found, strict=True)
        return {run_id: (batch or b"").decode() for run_id, (state, batch) in known if state}

    def status(self, batch_id: str) -> BatchStatus | None:
        """How far a batch is; None where it is not known (any more). One round trip."""
        key = self._keys.batch(batch_id)
        with self._clients.sync.pipeline(transaction=False) as pipe:
            pipe.hmget(key, _FIELDS)
            pipe.lrange(f"{key}:failed", 0, MOST_FAILED_IDS - 1)
            values, failed = pipe.execute()
        found = {name: (value or b"").decode() for name, value in zip(_FIELDS, values, strict=True)}
        if not found["state"]:
            return None
        return BatchStatus(
            id=batch_id, name=found["name"], state=State(found["state"]), total=int(found["total"] or 0),
            succeeded=int(found["succeeded"] or 0), failed=int(found["failed"] or 0),
            open=found["open"] == "1", failed_ids=tuple(run_id.decode() for run_id in failed),
            fault=found["fault"],
        )  # fmt: skip

    def over(self, batch_id: str) -> bool:
        """Whether the batch takes no more members. One round trip."""
        followed, state = self._clients.sync.hmget(self._keys.batch(batch_id), "followed", "state")
        return followed == b"1" or state not in (None, b"", b"running")

    def root_of(self, batch_id: str) -> str | None:
        """The run at the top of the tree that a batch is part of. One round trip."""
        run = self._runs.get(batch_id)
        return run.facts.get("root_id") if run is not None else None

    def followed_by(self, run_id: str) -> str | None:
        """The batch that a run follows: its parent."""
        run = self._runs.get(run_id)
        return run.facts.get("parent_id") if run is not None else None

    def silent(self, most: int = 100) -> list[str]:
        """Batches of which nothing was heard for too long, by the server's clock."""
        seconds, _ = self._clients.sync.time()
        found: Any = self._clients.sync.zrangebyscore(self._keys.batches, "-inf", seconds, start=0, num=most)
        return [batch_id.decode() for batch_id in found]

    def unfollowed(self) -> list[str]:
        """Batches that have ended, and the beat is to send what follows them."""
        found: Any = self._clients.sync.smembers(self._keys.batches_to_follow)
        return sorted(batch_id.decode() for batch_id in found)

    def signatures(self, batch_id: str) -> dict[str, list[Any]]:
        """What is to be sent after a batch: signatures by `on_success`, `on_complete`."""
        names = ["on_complete"]
        status = self.status(batch_id)
        if status is not None and status.state is State.SUCCEEDED:
            names.insert(0, "on_success")
        values: Any = self._clients.sync.hmget(self._keys.batch(batch_id), names)
        found = zip(names, values, strict=True)
        return {name: kombu_json.loads(text) for name, text in found if text}  # type: ignore[no-untyped-call]

    def followed(self, batch_id: str) -> None:
        """What follows the batch was sent."""
        self._clients.sync.srem(self._keys.batches_to_follow, batch_id)


def _change(what: str, batch_id: str, facts: dict[str, Any]) -> Operation:
    return ["batch", what, batch_id, msgspec.json.encode(facts).decode()]


def _json(items: Sequence[Any], later: bool) -> str:
    """Signatures, as kombu writes whatever may be in them; or operations, as the script finds their parts."""
    if not items:
        return ""
    if later:
        return str(kombu_json.dumps(list(items)))  # type: ignore[no-untyped-call]
    return msgspec.json.encode([[_text(part) for part in operation] for operation in items]).decode()


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)
