"""Group commit: what one turn of an event loop has to say is one call.

While calls are under way the next operations gather, so that the busier a loop is, the fewer calls it makes
for each of them (group commit). Two calls may be under way: the server works on one while the loop works with
what the other one brought.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from hiredis import pack_command

from errands.broker.answer import Answer
from errands.broker.commit import WORKER_SILENCE
from errands.broker.errors import NotHeard
from errands.broker.loop_line import LoopLine
from errands.broker.operations import Operation, Reply, Verdict, in_full, replies, said_again
from errands.broker.script import Script

logger = logging.getLogger("errands.batch")

_MOST = 64  # operations in one call: half a millisecond or one of the server's time
_CALLS = 2  # under way at a time, on one connection: the server does them in their order
_TIMED_OUT = (TimeoutError, redis.TimeoutError)
_TO_BE_SAID_AGAIN = (
    redis.ConnectionError, redis.exceptions.NoScriptError, redis.exceptions.OutOfMemoryError,
)  # fmt: skip


class _Call:
    """Operations that go to the server together, and who waits for what it says."""

    __slots__ = ("answers", "operations", "said")

    def __init__(self, waiting: list[tuple[Operation, Answer]]) -> None:
        self.operations = [operation for operation, _ in waiting]
        self.answers = [answer for _, answer in waiting]
        self.said = False  # the server may have heard it

    def answer(self, found: list[Reply]) -> list[tuple[Operation, Answer]]:
        """Give the answers. Returns what the server has to be asked in full, in its order."""
        rest: list[tuple[Operation, Answer]] = []
        for operation, answer, reply in zip(self.operations, self.answers, found, strict=True):
            if reply.verdict is Verdict.OTHER:
                rest.append((in_full(operation), answer))
            else:
                answer.give(reply)
        return rest

    def fail(self, error: Exception) -> None:
        for answer in self.answers:
            if not answer.there:
                answer.give(None, error)


class Batch:
    """Commits operations for the code of one loop.

    Args:
        url: the server's address.
        script: the script that commits.
        loop: the loop.
        patience: seconds to go on trying while the server is away.
        silence: seconds without an answer after which a call counts as not heard.
    """

    def __init__(
        self, url: str, script: Script, loop: asyncio.AbstractEventLoop, *, patience: float, silence: float
    ) -> None:
        self.loop = loop
        self._script = script
        self._patience = patience
        self._line = LoopLine(url, silence, loop)
        self._waiting: deque[tuple[Operation, Answer]] = deque()
        self._again: deque[tuple[Operation, Answer]] = deque()  # to be asked in full, before what waits
        self._flusher: asyncio.Task[None] | None = None
        self._under_way: deque[_Call] = deque()
        self._recovery: asyncio.Task[None] | None = None
        self._room = asyncio.Event()

    def runs_here(self) -> bool:
        """Whether the calling code runs on the loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def submit(self, operation: Operation) -> Answer:
        """Have `operation` committed. To be called on the loop."""
        answer = self.collect(operation)
        self.flush_soon()
        return answer

    def collect(self, operation: Operation) -> Answer:
        """`submit`, by who calls `flush` when it has all that it has to say."""
        answer = Answer(self.loop)
        self._waiting.append((operation, answer))
        return answer

    def flush_soon(self) -> None:
        """Send what was collected in the next turns of the loop."""
        if (self._waiting or self._again) and self._flusher is None:
            self._flusher = self.loop.create_task(self._flush(), name="errands-batch")

    def flush(self) -> bool:
        """Send what was collected: at once where the server has nothing else to do, so that nobody waits for
        another turn of the loop; else with what gathers meanwhile. Returns whether all of it has gone out."""
        if self._waiting and self._line.connected and not (self._flusher or self._under_way):
            self._send_some()
        self.flush_soon()
        return self._flusher is None and self._line.gone_out

    def submit_from_thread(self, operation: Operation) -> concurrent.futures.Future[Reply]:
        """The same, from another thread than the loop's."""

        async def submit() -> Reply:
            return await self.submit(operation)

        return asyncio.run_coroutine_threadsafe(submit(), self.loop)

    def post(self, operation: Operation, heard: Callable[[Reply], object]) -> None:
        """Have `operation` committed, from any thread, without waiting, before what this thread says next.

        `heard` is called on the loop with the reply; a failure is logged.
        """
        if self.runs_here():
            self._post(operation, heard)
        else:
            self.loop.call_soon_threadsafe(self._post, operation, heard)

    async def drain(self) -> None:
        """Wait until all that was submitted is committed, and hang up."""
        while self._flusher is not None or self._under_way:
            self._room.clear()
            await self._room.wait()
        self._line.hang_up()

    def _post(self, operation: Operation, heard: Callable[[Reply], object]) -> None:
        def told() -> None:
            try:
                reply = answer.result()
            except Exception as problem:  # noqa: BLE001 — whatever it was, nobody waits for it
                logger.warning("what a run told could not be written: %s", problem)
            else:
                heard(reply)

        answer = self.submit(operation)
        answer.then(told)

    async def _flush(self) -> None:
        """Send what waits, no more than `_CALLS` ahead of the server."""
        try:
            while self._waiting or self._again:
                await asyncio.sleep(0)  # who is ready in this turn of the loop comes along
                while self._recovery is not None or len(self._under_way) >= _CALLS:
                    self._room.clear()
                    await self._room.wait()
                self._send_some()
        finally:
            self._flusher = None
            self._room.set()

    def _send_some(self) -> None:
        call = _Call(self._next())
        if not call.operations:  # they were sent meanwhile
            return
        try:
            commands, count = self._script.packed(call.operations)
        except Exception as exc:  # noqa: BLE001 — it is told to those who wait
            call.fail(exc)
            return
        self._under_way.append(call)
        if self._line.connected:
            call.said = True
            self._line.send(commands, count, partial(self._hear, call))
        else:
            self._recover()

    def _next(self) -> list[tuple[Operation, Answer]]:
        some: list[tuple[Operation, Answer]] = []
        for line in (self._again, self._waiting):
            while line and len(some) < _MOST:
                some.append(line.popleft())
        return some

    def _hear(self, call: _Call, answer: list[Any] | NotHeard) -> None:
        """Take the server's answer to what is under way. It answers in the order in which it is asked."""
        if self._recovery is not None:
            return  # which asks anew
        try:
            if isinstance(answer, NotHeard):
                raise answer
            self._answer(call, self._script.outcome(answer, call.operations))
        except _TO_BE_SAID_AGAIN as exc:
            call.said = isinstance(exc, NotHeard)
            self._recover(exc)
            return
        except Exception as exc:  # noqa: BLE001 — it is told to those who wait
            call.fail(exc)
        self._under_way.popleft()
        self._room.set()

    def _answer(self, call: _Call, found: list[Reply]) -> None:
        rest = call.answer(found)
        if rest:
            self._again.extend(rest)
            self.flush_soon()

    # -- without an answer

    def _recover(self, problem: redis.RedisError | None = None) -> None:
        """Say what is under way again, a call after the other, until the server answers. Nothing else is sent
        meanwhile, so that the order stays."""
        self._line.hang_up()
        self._recovery = self.loop.create_task(self._say_again(problem), name="errands-batch-recovery")

    async def _say_again(self, problem: redis.RedisError | None) -> None:
        try:
            while self._under_way:
                call = self._under_way[0]
                try:
                    if problem is not None and self._out_of_time(problem):
                        raise problem
                    # What was said behind a call that was not heard may have been done as well.
                    unheard = NotHeard("the connection was lost") if call.said else None
                    self._answer(call, await self._commit(call.operations, unheard))
                except Exception as exc:  # noqa: BLE001 — it is told to those who wait
                    call.fail(exc)
                self._under_way.popleft()
        finally:
            self._recovery = None
            self._room.set()

    def _out_of_time(self, problem: BaseException) -> bool:
        """Whether a caller has waited for an answer as long as callers wait."""
        return self._patience < WORKER_SILENCE and isinstance(problem.__cause__, _TIMED_OUT)

    async def _commit(self, operations: list[Operation], unheard: NotHeard | None) -> list[Reply]:
        """Say `operations` until the server answers. `unheard`: they were said before, without an answer."""
        deadline = self.loop.time() + self._patience
        said, tries = operations, 0
        if unheard is not None:
            said = [said_again(operation) for operation in operations]
        while True:
            try:
                await self._line.connect()
                answer = await self._ask(said)
                return replies(answer, operations, again=unheard is not None)
            except NotHeard as exc:
                problem: redis.RedisError = exc
                unheard = exc
                said = [said_again(operation) for operation in operations]
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError) as exc:
                problem = exc
            except redis.exceptions.OutOfMemoryError as exc:
                problem = exc
            tries += 1
            if self._out_of_time(problem) or (tries > 1 and self.loop.time() >= deadline):
                raise unheard or problem
            await asyncio.sleep(min(0.01 * 2**tries, 1.0, max(0.0, deadline - self.loop.time())))

    async def _ask(self, operations: list[Operation]) -> Any:
        """Have the script do `operations`, on a line that is connected. Returns its reply."""
        try:
            return await self._reply_to(self._script.command(operations))
        except redis.exceptions.NoScriptError:
            pass
        try:
            return await self._reply_to(self._script.command(operations, whole=True))
        except redis.ResponseError as exc:
            if not self._script.refused(exc):
                raise
            return await self._reply_to(self._script.command(operations, whole=True))

    async def _reply_to(self, command: list[Any]) -> Any:
        future: asyncio.Future[Any] = self.loop.create_future()

        def heard(answer: list[Any] | NotHeard) -> None:
            if not future.done():  # else the loop ends
                future.set_result(answer)

        self._line.send(pack_command(tuple(command)), 1, heard)
        answer = await future
        if isinstance(answer, NotHeard):
            raise answer
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]
