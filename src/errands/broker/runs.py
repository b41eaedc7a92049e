"""The live state of every run, and the door through which every event goes.

One script writes an event and moves the run's state together, so that the two cannot disagree, and refuses
what may not happen: a finished run does not start again, a revoked one does not start at all, and what an
attempt says that is no longer the newest one is not heard.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from errands.broker import leases
from errands.broker.allowing import take
from errands.broker.answer import Answer
from errands.broker.batch import Batch
from errands.broker.client import Clients
from errands.broker.commit import PRODUCER_SILENCE, WORKER_SILENCE, Commit
from errands.broker.keys import Keys
from errands.broker.operations import (
    SLOTS,
    Operation,
    Reply,
    Result,
    Verdict,
    check,
    claim,
    put,
    record,
    store,
)
from errands.broker.script import Script
from errands.core.events import Event, Kind
from errands.core.fairness import lane
from errands.core.green import in_green, wait
from errands.core.limits import Bound
from errands.core.states import FINAL, State
from errands.core.task import level_of

__all__ = ["LiveRun", "LiveRuns", "Operation", "Reply", "Result", "Verdict", "facts_of"]

# What the live state keeps of an event, beside the state.
_KEPT = (
    "task", "queue", "owner", "subject", "parent_id", "root_id", "args", "kwargs", "options", "eta",
    "expires", "max_attempts", "worker", "pid", "result", "error", "progress", "note", "checkpoint",
)  # fmt: skip
_OF_ONE_ATTEMPT = ("eta", "error", "note", "progress", "result", "finished_at")
_TIME_OF = {Kind.QUEUED: "queued_at", Kind.STARTED: "started_at"}
_WITH_ATTEMPT = (Kind.QUEUED, Kind.REOPENED)  # of a run that goes on counting
_WEEK = 7 * 24 * 3600
# A worker waits for a server that is away, since nobody waits for the worker; a caller does not.
_WORKERS_PATIENCE = 60.0
_CALLERS_PATIENCE = 0.23  # with the time it takes to say so, a quarter of a second


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
    """Records events, sends messages with them, and reads live states.

    Args:
        clients: connections to Valkey.
        keys: key names.
        result_expires: seconds that an ended run stays here; the ledger keeps it longer.
        events_max: entries that the stream may hold, but for those of one call; then the oldest are dropped.
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
        self._script = Script(keys, events_max=events_max, max_deliveries=max_deliveries)
        self._commit = Commit(clients.url, self._script)
        self._batch: Batch | None = None  # of the loop on which this worker's tasks run
        self._batches: dict[asyncio.AbstractEventLoop, dict[bool, Batch]] = {}

    # -- committing

    def batch_on(self, loop: asyncio.AbstractEventLoop) -> Batch:
        """From now on, all that this process has to say goes together with what `loop` has to say."""
        self._batch = Batch(
            self._clients.url, self._script, loop, patience=_WORKERS_PATIENCE, silence=WORKER_SILENCE
        )
        return self._batch

    def unbatch(self) -> None:
        """The loop of `batch_on` has ended."""
        self._batch = None

    def commit(self, operations: Sequence[Operation], *, patience: float = _CALLERS_PATIENCE) -> list[Reply]:
        """Commit `operations` in their order, in one round trip.

        Called by a task on a worker's loop, it lets the loop go on meanwhile.

        Args:
            operations: made by `putting`, `recording` and `storing`.
            patience: seconds to go on trying while the server is away.

        Raises:
            redis.ConnectionError: the server is away, and nothing was done.
            NotHeard: nobody knows whether it was done.
            redis.ResponseError: the server refused (it is full, say).
        """
        return self.start(operations, patience=patience)()

    def start(
        self, operations: Sequence[Operation], *, patience: float = _CALLERS_PATIENCE
    ) -> Callable[[], list[Reply]]:
        """`commit` in two steps: what is returned waits for the replies, in the same thread."""
        batch = self._batch
        if batch is not None and in_green():
            on_loop = [batch.submit(each) for each in operations]
            return lambda: [wait(future) for future in on_loop]
        if batch is None or threading.current_thread() is threading.main_thread() or batch.runs_here():
            return self._commit.start(operations, patience)
        from_thread = [batch.submit_from_thread(each) for each in operations]
        return lambda: [future.result() for future in from_thread]

    async def acommit(
        self, operations: Sequence[Operation], *, patience: float = _CALLERS_PATIENCE
    ) -> list[Reply]:
        """`commit` for asyncio code, together with what else this turn of the running loop has to say.

        Args:
            patience: seconds to go on trying; who asks for `WORKER_SILENCE` or more has that many.
        """
        loop = asyncio.get_running_loop()
        if self._batch is not None and self._batch.loop is loop:
            return await _all(self._batch, operations)
        patient = patience >= WORKER_SILENCE
        batch = self._batches.get(loop, {}).get(patient)
        if batch is None:
            # Who makes a loop for each request (Django's `async_to_sync`) must not fill up with connections.
            self._batches = {known: kept for known, kept in self._batches.items() if not known.is_closed()}
            batches = self._batches.setdefault(loop, {})
            seconds = (WORKER_SILENCE, WORKER_SILENCE) if patient else (_CALLERS_PATIENCE, PRODUCER_SILENCE)
            batch = batches[patient] = Batch(
                self._clients.url, self._script, loop, patience=seconds[0], silence=seconds[1]
            )
        return await _all(batch, operations)

    # -- operations

    def putting(
        self, event: Event | None, *, run_id: str, queue: str, priority: int | None, message: bytes,
        due: float | None = None, wait: float | None = None, tenant: str = "", unless_known: bool = False,
        rules: str = "",
    ) -> Operation:  # fmt: skip
        """Put a message into its queue, and tell that it is there.

        Args:
            event: the "queued" event of the run; None for a message that goes on with a run known before.
            run_id: the run's id.
            queue, priority: where the message waits.
            message: the message as kombu's virtual transports carry it.
            due: when it may start, in seconds since 1970; None at once.
            wait: seconds from now after which it may start, whatever this machine's clock says; before `due`.
            tenant: who takes turns with others there; "" nobody.
            unless_known: do nothing, and reply `KNOWN`, if a run of this id was accepted before.
            rules: what the run's rules ask of its acceptance, as JSON.
        """
        told = None if event is None else self.recording(event)
        due_ms = 0
        if wait:
            due_ms = -math.ceil(max(0.0, wait) * 1000)
        elif due is not None:
            due_ms = math.ceil(due * 1000)
        where = lane(level_of(priority), tenant) if tenant else level_of(priority)
        return put(queue, where, message, run_id, due_ms, told, new=unless_known, rules=rules)

    def recording(
        self, event: Event, *, hop: int = -1, flags: str = "", attempt: int | None = None,
        time_limit: float = 0, result: Result | None = None, rules: str = "",
    ) -> Operation:  # fmt: skip
        """Write an event: see `record`."""
        if event.state in FINAL:
            seconds = self._result_expires
        else:
            seconds = _WEEK if event.eta is None else _WEEK + max(0, int(event.eta - event.at))
            seconds = max(seconds, self._result_expires)
        if attempt is None and event.kind in _WITH_ATTEMPT:
            attempt = event.attempt
        return record(
            event, seconds, hop=hop, flags=flags, attempt=attempt, time_limit=time_limit, result=result,
            rules=rules,
        )  # fmt: skip

    # -- events

    def record(
        self,
        event: Event,
        *,
        hop: int = -1,
        redelivered: bool = False,
        copy: bool = False,
        died: bool = False,
        neighbours: bool = False,
        time_limit: float = 0,
        attempt: int | None = None,
        result: Result | None = None,
        rules: str = "",
    ) -> Reply:
        """Write one event. One round trip, or a share of one.

        Args:
            event: what happened.
            hop: how often the message at hand was sent on (retries, snoozes); -1 when no message is at hand.
            redelivered: the broker says that it gave this message to a worker before.
            copy: the message is one that found its run in the hands of a live worker, and waited.
            died: the process that worked on the last attempt is gone, though its worker lives.
            neighbours: others are at work in the process that is to make the attempt.
            time_limit: seconds that an attempt may last at most; 0 when nobody knows.
            attempt: the attempt that speaks, heard only while it is the newest one. None: somebody else.
            result: what Celery's result backend keeps if the event is accepted.
            rules: what the task's rules ask of the start of an attempt, as JSON.

        Returns:
            The verdict, the number of the run's present attempt, and how many workers took its message.
        """
        flags = ("r" if redelivered else "") + ("c" if copy else "") + ("d" if died else "")
        flags += "n" if neighbours else ""
        operation = self.recording(
            event, hop=hop, flags=flags, attempt=attempt, time_limit=time_limit, result=result, rules=rules
        )
        return self._ask(operation)

    def record_here(
        self, event: Event, *, hop: int, time_limit: float = 0, attempt: int | None = None,
        result: Result | None = None, collect: bool = False,
    ) -> Answer | None:  # fmt: skip
        """`record`, without waiting, on the loop of `batch_on`; None elsewhere.

        Args:
            event, hop, time_limit, attempt, result: as with `record`.
            collect: the caller is the worker's hub, which sends what it has collected before it waits.
        """
        batch = self._batch
        if batch is None or not batch.runs_here():
            return None
        operation = self.recording(event, hop=hop, time_limit=time_limit, attempt=attempt, result=result)
        return batch.collect(operation) if collect else batch.submit(operation)

    def tell(
        self, event: Event, *, hop: int, attempt: int, heard: Callable[[Reply], object], quiet: bool = False,
        wait: bool = False,
    ) -> None:  # fmt: skip
        """Write what an attempt tells on its way: progress, a log line, a checkpoint.

        Where many tasks share a loop, nobody waits for it unless by `wait`; what is told later is
        written later.

        Args:
            event: what is told.
            hop, attempt: as with `record`.
            heard: called with the reply: `REFUSED` where the run has ended or was revoked, `STALE` where
                another attempt has begun since.
            quiet: keep it in the live state, and leave the stream of events alone.
            wait: return when it is written.
        """
        operation = self.recording(event, hop=hop, attempt=attempt, flags="q" if quiet else "")
        if self._batch is not None and not wait:
            self._batch.post(operation, heard)
        else:
            heard(self._ask(operation))

    def check(self, run_id: str, *, hop: int, attempt: int) -> Reply:
        """Whether the run is still wanted and still this attempt's (`OK`), or not: see `tell`."""
        return self._ask(check(run_id, hop=hop, attempt=attempt))

    def _ask(self, operation: Operation) -> Reply:
        batch = self._batch
        if batch is not None and in_green():  # the way of nearly all that is said in an asyncio worker
            return wait(batch.submit(operation))
        patience = _WORKERS_PATIENCE if leases.holder() else _CALLERS_PATIENCE
        return self.commit([operation], patience=patience)[0]

    def claim(self, run_id: str, asked: dict[str, Any], *, patience: float | None = None) -> Reply:
        """Let a run that Celery sends stand for its work, if no other does: see `lua/unique.lua`.

        Args:
            run_id: the run.
            asked: what the task's rule says of it.
            patience: seconds to go on trying while the server is away; 0 for a glance, where one can do
                without an answer. By default as for anything else.

        Returns:
            `OK`, or `DUPLICATE` and the run that stands for it.
        """
        operation = claim(run_id, msgspec.json.encode(asked).decode())
        return self._ask(operation) if patience is None else self.commit([operation], patience=patience)[0]

    def take(self, name: str, count: int, bound: Bound) -> tuple[int, float]:
        """Take from a limit in the middle of a run: see `allowing.take`."""
        return take(self._clients.sync, self._keys, name, count, bound)

    def store(self, result: Result, unless: str = "") -> None:
        """Keep a result, unless the one that is there matches the Lua pattern `unless`."""
        patience = _WORKERS_PATIENCE if leases.holder() else _CALLERS_PATIENCE
        self.commit([store(result, unless)], patience=patience)

    # -- reading

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

    def checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """How far the run's loops came, as `Event.checkpoint` has it; None where nothing is known of it."""
        told: Any = self._clients.sync.hget(self._keys.run(run_id), "checkpoint")
        return None if told is None else Event.from_json(told).checkpoint

    def known(self, run_id: str) -> bool:
        """Whether a run of this id was accepted and is not forgotten yet."""
        return bool(self._clients.sync.exists(self._keys.run(run_id)))


def facts_of(event: Event) -> dict[str, Any]:
    """What the live state of a run keeps of an event, beside the state itself."""
    if event.kind is Kind.LIMITED:
        return {"waits_for": event.note}
    facts = {name: value for name in _KEPT if (value := getattr(event, name)) is not None}
    if event.state is not None and event.state.final:
        facts["finished_at"] = event.at
    elif event.kind in _TIME_OF:
        facts[_TIME_OF[event.kind]] = event.at
    return facts


async def _all(batch: Batch, operations: Sequence[Operation]) -> list[Reply]:
    answers = [batch.submit(operation) for operation in operations]
    return [await answer for answer in answers]


def _read(run_id: str, row: Any) -> LiveRun | None:
    if not row or b"state" not in row:
        return None
    facts: dict[str, Any] = {}
    for slot in SLOTS:
        told = row.get(slot.encode())
        if told is None:
            continue
        more = facts_of(Event.from_json(told))
        if slot == "started":  # what was said before is not about this attempt
            facts = {name: value for name, value in facts.items() if name not in _OF_ONE_ATTEMPT}
            if b"replaced" in row:  # and its message may have older arguments
                more = {name: value for name, value in more.items() if name not in ("args", "kwargs")}
        facts |= more
    state = State(row[b"state"].decode())
    if b"others" in row:
        facts["requests"] = int(row[b"others"]) + 1
    hop, attempt = row.get(b"at", b"0 0 ").split(b" ", 2)[:2]  # see `lua/attempt.lua`
    return LiveRun(run_id, state, int(attempt), max(0, int(hop)), facts)
