"""Commits operations in the calling thread, in one round trip, and reads what the server replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import redis

from errands.broker import leases
from errands.broker.errors import NotHeard
from errands.broker.line import Line, Pending, pauses
from errands.broker.operations import Operation, Reply, Verdict, in_full, replies, said_again
from errands.broker.script import Script

GLANCE_SILENCE = 0.05  # seconds, for a question that can do without an answer
PRODUCER_SILENCE = 0.19  # a caller waits no longer: with a glance before it, a quarter of a second
WORKER_SILENCE = 5.0


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
        receive = self._start(operations, patience)
        if not leases.holder():  # what producers say is done as it is said
            return receive
        return lambda: self._in_full(receive(), operations, patience)

    def _start(self, operations: Sequence[Operation], patience: float) -> Callable[[], list[Reply]]:
        silence = PRODUCER_SILENCE if patience else GLANCE_SILENCE
        line = self._lines[silence if patience < WORKER_SILENCE else WORKER_SILENCE]
        try:
            pending = line.send_packed(*self._script.packed(operations))
        except redis.ConnectionError as exc:
            if _out_of_time(exc, patience):  # it takes connections and does not speak
                return partial(_fail, exc)
            return lambda: self._insist(line, operations, patience, None)
        return partial(self._finish, line, pending, operations, patience)

    def _in_full(self, found: list[Reply], operations: Sequence[Operation], patience: float) -> list[Reply]:
        """`found`, with what the server has to be asked in full."""
        if all(reply.verdict is not Verdict.OTHER for reply in found):
            return found
        again = [
            in_full(said)
            for said, reply in zip(operations, found, strict=True)
            if reply.verdict is Verdict.OTHER
        ]
        rest = iter(self.run(again, patience))
        return [next(rest) if reply.verdict is Verdict.OTHER else reply for reply in found]

    def _finish(
        self, line: Line, pending: Pending, operations: Sequence[Operation], patience: float
    ) -> list[Reply]:
        try:
            return self._script.outcome(pending.receive_all(), operations)
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
