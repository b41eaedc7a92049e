"""Operations on runs, committed together: one call of one script, however many they are.

An operation is the list of arguments that `lua/commit.lua` reads. They are made by the functions of this
module, committed by `Commit` (at once, in the calling thread) or by `Batch` (together with whatever else one
turn of an event loop has to say).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from importlib.resources import files
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn

import redis

from errands.broker import leases
from errands.broker.errors import NotHeard
from errands.broker.keys import Keys
from errands.broker.line import Line, Pending, pauses
from errands.core.events import Event, Kind
from errands.core.states import FINAL, MOVES, State

Operation = list[Any]

GLANCE_SILENCE = 0.05  # seconds, for a question that can do without an answer
PRODUCER_SILENCE = 0.19  # a caller waits no longer: with a glance before it, a quarter of a second
WORKER_SILENCE = 5.0

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
# On a server that is full, workers go on: what they finish makes room. Before Redis 7 no script can say so.
_OF_WORKERS = "#!lua flags=allow-oom\n"
_PUT, _RECORD, _CHECK = "put", "record", "check"
_LANE, _DUE, _MODE, RULES_OF_PUT, _KIND_OF_PUT, _EVENT_OF_PUT, _ATTEMPT_OF_PUT = 2, 4, 6, 7, 9, 11, 16
_TENANT_FOLLOWS = "\1"  # in a lane: see `core/fairness.py`
_SENT = itemgetter(1, 2, 3, 8, 6, 11, 13)  # of a `put`, what `lua/send.lua` wants
_PLAIN = 2  # variants further on: those that send plain runs
_FLAGS = {_PUT: 15, _RECORD: 8}


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


class Script:
    """The script, and how it is called.

    Args:
        keys: key names.
        events_max: entries that the stream of events may hold, at the very most.
        max_deliveries: workers that one message may take down.
    """

    def __init__(self, keys: Keys, *, events_max: int, max_deliveries: int) -> None:
        self._settings = [keys.prefix, events_max, max_deliveries]
        text, plain = _script(), _lua("send")
        self._texts = [_OF_WORKERS + text, text, _OF_WORKERS + plain, plain]
        self._shas = [hashlib.sha1(each.encode(), usedforsecurity=False).hexdigest() for each in self._texts]
        self._producers = 1
        self._workers = 0

    def command(self, operations: Sequence[Operation], *, whole: bool = False) -> list[Any]:
        """The command that commits `operations`; `whole` for a server that does not know the script yet."""
        holder = leases.holder()
        variant = self._workers if holder else self._producers
        plain = all(map(_is_plain, operations))
        if plain:
            variant += _PLAIN
        arguments: list[Any] = ["EVAL", self._texts[variant]] if whole else ["EVALSHA", self._shas[variant]]
        if plain:
            arguments += [0, *self._settings[:2]]
            for operation in operations:
                arguments += _SENT(operation)
        else:
            arguments += [0, *self._settings, holder]
            for operation in operations:
                arguments += operation
        return arguments

    def refused(self, error: redis.ResponseError) -> bool:
        """Whether the server is too old for the flags of the workers' script; then it goes without them."""
        too_old = self._workers == 0 and "compiling script" in str(error)
        if too_old:
            self._workers = self._producers
        return too_old


class Commit:
    """Commits operations in the calling thread, in one round trip."""

    def __init__(self, url: str, script: Script) -> None:
        self._script = script
        silences = (GLANCE_SILENCE, PRODUCER_SILENCE, WORKER_SILENCE)
        self._lines = {silence: Line(url, silence) for silence in silences}

    def run(self, operations: Sequence[Operation], patience: float) -> list[Reply]:
        """Commit `operations`, in their order: `start` it, and wait. Args and errors are those of `start`."""
        return self.start(operations, patience)()

    def start(self, operations: Sequence[Operation], patience: float) -> Callable[[], list[Reply]]:
        """Send `operations` to the server; what is returned waits for its replies, in the same thread.

        Args:
            operations: what is to be done.
            patience: seconds to go on trying while the server is away; 0 waits a moment only. What was
                written and not answered is said again in a way that does nothing twice.

        Raises:
            redis.ConnectionError: the server did not come back in time; nothing was done.
            NotHeard: the same, and nobody knows whether it was done.
            redis.ResponseError: the server refused (it is full, say).
        """
        silence = PRODUCER_SILENCE if patience else GLANCE_SILENCE
        line = self._lines[silence if patience < WORKER_SILENCE else WORKER_SILENCE]
        try:
            pending = line.send(self._script.command(operations))
        except redis.ConnectionError as exc:
            if _out_of_time(exc, patience):  # it takes connections and does not speak
                return partial(_fail, exc)
            return lambda: self._insist(line, operations, patience, None)
        return lambda: self._finish(line, pending, operations, patience)

    def _finish(
        self, line: Line, pending: Pending, operations: Sequence[Operation], patience: float
    ) -> list[Reply]:
        try:
            return replies(pending.receive(), operations, again=False)
        except (redis.exceptions.NoScriptError, redis.exceptions.BusyLoadingError):
            return self._insist(line, operations, patience, None)
        except NotHeard as exc:
            if _out_of_time(exc, patience):
                raise
            return self._insist(line, operations, patience, exc)

    def _insist(
        self, line: Line, operations: Sequence[Operation], patience: float, unheard: NotHeard | None
    ) -> list[Reply]:
        """Say it until the server answers. `unheard`: it was said before, without an answer."""
        said = operations if unheard is None else [said_again(operation) for operation in operations]
        problem: redis.RedisError | None = unheard
        for _ in pauses(patience):
            try:
                return replies(self._call(line, said), operations, again=unheard is not None)
            except NotHeard as exc:
                problem = unheard = exc
                said = [said_again(operation) for operation in operations]
                if _out_of_time(exc, patience):
                    break
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError) as exc:
                problem = exc
                if _out_of_time(exc, patience):
                    break
        raise unheard or problem or redis.ConnectionError("the server is away")

    def _call(self, line: Line, operations: Sequence[Operation]) -> Any:
        try:
            return line.call(self._script.command(operations))
        except redis.exceptions.NoScriptError:
            try:
                return line.call(self._script.command(operations, whole=True))
            except redis.ResponseError as exc:
                if not self._script.refused(exc):
                    raise
                return line.call(self._script.command(operations, whole=True))


def _fail(error: redis.RedisError) -> NoReturn:
    raise error


def _out_of_time(error: redis.RedisError, patience: float) -> bool:
    """Whether a caller has waited for an answer as long as callers wait."""
    return patience < WORKER_SILENCE and isinstance(error.__cause__, TimeoutError | redis.TimeoutError)


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


def _is_plain(operation: Operation) -> bool:
    """Whether it sends a new run that no rule has a say in, to be done at once."""
    return (
        operation[0] == _PUT
        and not operation[_DUE]
        and not operation[RULES_OF_PUT]
        and operation[_KIND_OF_PUT] == _TEXTS[Kind.QUEUED]
        and operation[_ATTEMPT_OF_PUT] == ""
        and _TENANT_FOLLOWS not in operation[_LANE]
    )


def _lua(name: str) -> str:
    return files("errands.broker").joinpath("lua", f"{name}.lua").read_text()


def _script() -> str:
    moves = {state.value: {before.value if before else "none" for before in MOVES[state]} for state in MOVES}
    moves[Kind.REOPENED.value] = {"none", *(state.value for state in FINAL)}
    moves["final"] = {state.value for state in FINAL}
    table = ", ".join(
        f"{after} = {{{', '.join(f'{before} = true' for before in sorted(befores))}}}"
        for after, befores in sorted(moves.items())
    )
    before = ("attempt", "schedule", "unique", "fair", "put", "keep", "limits", "waiting", "batch", "record")
    return "\n".join([f"local MOVES = {{{table}}}", *map(_lua, (*before, "commit"))])
