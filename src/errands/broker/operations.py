"""What is said about runs, as the arguments that `lua/commit.lua` reads, and what the server replies.

Operations are committed by `Commit` (at once, in the calling thread) or by `Batch` (together with whatever
else one turn of an event loop has to say), however many by one call of one script (`script.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from operator import itemgetter
from typing import Any, NamedTuple

from errands.core.events import Event, Kind
from errands.core.states import State

Operation = list[Any]

# Where the live hash keeps the event that tells of each stage of a life.
_SLOT = {
    Kind.QUEUED: "queued", Kind.REPLACED: "replaced", Kind.REOPENED: "reopened", Kind.STARTED: "started",
    Kind.PROGRESS: "progress",
    Kind.CHECKPOINT: "checkpoint", Kind.LIMITED: "limited", Kind.LOG: "", Kind.DEAD_LETTER: "",
}  # fmt: skip
# A member's `value` is looked up by a property, each time anew.
_TEXTS: dict[Kind | State | None, str] = {None: "", **{each: each.value for each in (*Kind, *State)}}
_NO_RESULT = ("", 0, "")
SLOTS = ("queued", "replaced", "reopened", "started", "progress", "checkpoint", "ended", "limited")
_NOTHING_TOLD: list[Any] = ["", "", "", "", 0, -1, "", "", 0, "", 0, "", ""]
_PUT, _RECORD, _CHECK = "put", "record", "check"
_LANE, _DUE, _MODE, RULES_OF_PUT, _KIND_OF_PUT, _EVENT_OF_PUT, _ATTEMPT_OF_PUT = 2, 4, 6, 7, 9, 11, 16
_TENANT_FOLLOWS = "\1"  # in a lane: see `core/fairness.py`
_FLAGS = {_PUT: 15, _RECORD: 8}
_RUN, _KIND, _EVENT, _SECONDS, _HOP, _FLAGS_OF_RECORD, _ATTEMPT, _RULES = 1, 2, 4, 6, 7, 8, 9, 14
_RESULT = itemgetter(11, 12, 13)
OF_SENDING = itemgetter(1, 2, 3, 8, 6, 11, 13)  # of a `put` that `sends_plainly`, what `lua/send.lua` wants
_STARTED, _SUCCEEDED = _TEXTS[Kind.STARTED], _TEXTS[Kind.SUCCEEDED]


class Verdict(StrEnum):
    """What the server said to an operation."""

    OK = "ok"
    KNOWN = "known"
    REFUSED = "refused"
    STALE = "stale"
    RUNNING = "running"
    DUPLICATE = "duplicate"
    EARLY = "early"  # later requests have put it off
    LIMITED = "limited"
    OVERLAP = "overlap"  # of a schedule's run: the one before is still open
    FENCED = "fenced"  # another beat leads
    MISSING = "missing"  # a message is not where it was said to be
    POISON = "poison"
    OTHER = "other"  # no ordinary life: it is asked again in full, and nobody but who commits sees this
    ALONE = "alone"  # it may be what took its workers down: it is to start when nothing else is at work there


_VERDICTS = {verdict.value.encode(): verdict for verdict in Verdict}


class Reply(NamedTuple):
    """The verdict; the number of the run's present attempt; how many workers took its message.

    `about` says more to some verdicts: the run that is there already (`DUPLICATE`), the name of the limit
    that stands in the way (`LIMITED`), the milliseconds until it may start (`EARLY`), the event that gave the
    run newer arguments than those of its message (`OK` to a start).
    """

    verdict: Verdict
    attempt: int
    deliveries: int
    about: str = ""


class Result(NamedTuple):
    """What Celery's result backend keeps: key, seconds to keep it (0: for ever), value."""

    key: str
    seconds: int
    value: str | bytes


def put(
    queue: str,
    lane: str,
    message: bytes,
    member: str,
    due_ms: int,
    told: Operation | None,
    *,
    new: bool,
    rules: str = "",
) -> Operation:
    """Put a message into a queue, at once or when it is due.

    Args:
        queue, lane: where it waits (see `core/fairness.py`).
        message: the message as it is delivered.
        member: the name that a message due later is found by: the run's id.
        due_ms: when it is due: 0 at once, above it ms since 1970, below it ms from now. The server's clock.
        told: the operation that tells of it (`record` of a "queued" event), or None.
        new: do nothing, and say `KNOWN`, if a run of this id was accepted before.
        rules: what the run's rules ask of its acceptance, as JSON (see `sending/rules.py`); "" nothing.
    """
    rest = told[1:] if told is not None else [member, *_NOTHING_TOLD]
    return [_PUT, queue, lane, message, due_ms, member, "new" if new else "", rules, *rest]


def record(
    event: Event, keep_seconds: int, *, hop: int, flags: str, attempt: int | None, time_limit: float,
    result: Result | None, rules: str = "",
) -> Operation:  # fmt: skip
    """Write an event, and keep the result that comes with it if the event is accepted.

    `rules` is what the task's rules ask of the start of an attempt, as JSON; "" nothing.
    """
    key, seconds, value = result or _NO_RESULT
    return [
        _RECORD, event.run_id, _TEXTS[event.kind], _TEXTS[event.state], event.to_json(),
        _SLOT.get(event.kind, "ended"), keep_seconds, hop, flags, "" if attempt is None else attempt,
        time_limit, key, seconds, value, rules,
    ]  # fmt: skip


def check(run_id: str, *, hop: int, attempt: int) -> Operation:
    """Ask whether the run is still wanted, and still this attempt's; nothing is written."""
    return [_RECORD, run_id, _CHECK, "", "", "", 0, hop, "", attempt, 0, "", 0, "", ""]


def claim(run_id: str, unique: str) -> Operation:
    """Let the run stand for its work, or learn which run does (`DUPLICATE`). For a message that Celery sends.

    Args:
        run_id: the run.
        unique: the part `unique` of its rules, as JSON: see `lua/unique.lua`.
    """
    return ["claim", run_id, unique]


def wait(sent: Operation, waits: str) -> Operation:
    """Let the message of a run that a limit stands in the way of wait in Valkey, instead of in its queue.

    Args:
        sent: the `put` that would send it.
        waits: what it waits for, as JSON: see `worker/admission.py`.
    """
    _, queue, lane, message, _, run_id, *_ = sent
    return ["wait", queue, lane, message, run_id, waits]


def wait_as_it_is(queue: str, level: str, run_id: str, waits: str) -> Operation:
    """`wait` for a message that the server has: it lies in the entry `at` of `waits`, and is moved as it is.

    Replies `MISSING` where it is not there, and the run does not wait yet.
    """
    return ["wait", queue, level, "", run_id, waits]


def store(result: Result, unless: str = "") -> Operation:
    """Keep a result, unless the one that is there matches the Lua pattern `unless`."""
    return ["store", *result, unless]


def replies(answer: Any, operations: Sequence[Operation], *, again: bool) -> list[Reply]:
    """The server's answer, a reply for each operation. `again`: they were said for a second time.

    What the script did besides (what follows a batch, say) has its replies behind those.
    """
    parts = iter(answer)
    found = [
        Reply(_VERDICTS[verdict], int(attempt), int(deliveries), about.decode() if about else "")
        for _, verdict, attempt, deliveries, about in zip(
            operations, parts, parts, parts, parts, strict=False
        )
    ]
    if again:
        for index, operation in enumerate(operations):
            reply = found[index]
            if reply.verdict is Verdict.KNOWN and operation[0] == _PUT and not operation[_MODE]:
                found[index] = reply._replace(verdict=Verdict.OK)  # it was heard the first time
    return found


def said_again(operation: Operation) -> Operation:
    """The same operation, for a server that may have done it already."""
    name = operation[0]
    if name not in _FLAGS:
        return operation
    said = list(operation)
    said[_FLAGS[name]] += "a"
    # A message that goes on with a run known before may be put twice: the second copy is stale by its hop.
    if name == _PUT and said[_EVENT_OF_PUT]:
        said[_MODE] = "new"
    return said


def in_full(operation: Operation) -> Operation:
    """The same operation, for the server to look at everything it knows of the run."""
    said = list(operation)
    said[_FLAGS_OF_RECORD] += "w"
    return said


def sends_plainly(operation: Operation) -> bool:
    """Whether it sends a new run that no rule has a say in, to be done at once."""
    return (
        operation[0] == _PUT
        and not operation[_DUE]
        and not operation[RULES_OF_PUT]
        and operation[_KIND_OF_PUT] == _TEXTS[Kind.QUEUED]
        and operation[_ATTEMPT_OF_PUT] == ""
        and _TENANT_FOLLOWS not in operation[_LANE]
    )


def sends_new(operation: Operation) -> bool:
    """Whether it `sends_plainly` a run whose id was made for it, and says so for the first time."""
    return sends_plainly(operation) and not operation[_MODE] and not operation[_FLAGS[_PUT]]


def is_ordinary(operation: Operation) -> bool:
    """Whether a worker says what nearly every run's worker says, once: it starts, it has succeeded."""
    if operation[0] != _RECORD or operation[_FLAGS_OF_RECORD] or operation[_RULES]:
        return False
    kind: str = operation[_KIND]
    return kind == _STARTED or (kind == _SUCCEEDED and bool(operation[_ATTEMPT]))


def of_life(said: Operation) -> tuple[Any, ...]:
    """Of an operation that `is_ordinary`, what `lua/lives.lua` wants."""
    if said[_KIND] == _STARTED:
        return "s", said[_RUN], said[_EVENT], said[_SECONDS], f"{said[_HOP]} 1"
    return "e", said[_RUN], said[_EVENT], said[_SECONDS], f"{said[_HOP]} {said[_ATTEMPT]}", *_RESULT(said)
