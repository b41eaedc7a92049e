"""Operations of one event loop, committed together: whatever one turn of the loop has to say is one call.

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
from typing import Any

import redis
import redis.asyncio
from hiredis import pack_command

from errands.broker.answer import Answer
from errands.broker.commit import WORKER_SILENCE
from errands.broker.errors import NotHeard
from errands.broker.operations import Operation, Reply, Verdict, in_full, replies, said_again
from errands.broker.script import Script

logger = logging.getLogger("errands.batch")

_MOST = 64  # operations in one call: half a millisecond or one of the server's time
_CALLS = 2  # under way at a time, on one connection: the server does them in their order
_TIMED_OUT = (TimeoutError, redis.TimeoutError)
_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)
_TO_BE_SAID_AGAIN = (
    redis.ConnectionError, redis.exceptions.NoScriptError, redis.exceptions.OutOfMemoryError,
)  # fmt: skip


class _Call:
    """Operations that go to the server together, and who waits for what it says."""

    __slots__ = ("answers", "operations", "unsaid")

    def __init__(self, waiting: list[tuple[Operation, Answer]]) -> None:
        self.operations = [operation for operation, _ in waiting]
        self.answers = [answer for _, answer in waiting]
        self.unsaid: redis.ConnectionError | None = None  # why it could not be sent

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
        self._silence = silence
        self._pool: Any = redis.asyncio.ConnectionPool.from_url(
            url, socket_timeout=None, socket_connect_timeout=min(silence, 0.25), health_check_interval=0
        )
        self._connection: Any = None
        self._waiting: deque[tuple[Operation, Answer]] = deque()
        self._again: deque[tuple[Operation, Answer]] = deque()  # to be asked in full, before what waits
        self._flusher: asyncio.Task[None] | None = None
        self._under_way: deque[_Call] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._recovering = False
        self._room = asyncio.Event()
        self._speaking = asyncio.Lock()  # one at a time on the connection

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

    @property
    def collected(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._waiting)

    def flush_soon(self) -> None:
        """Send what was collected in the next turns of the loop."""
        if (self._waiting or self._again) and self._flusher is None:
            self._flusher = self.loop.create_task(self._flush(), name="errands-batch")

    async def flush(self) -> None:
        """Send what was collected: at once where the server has nothing else to do, so that nobody waits for
        another turn of the loop; else with what gathers meanwhile."""
        connected = self._connection is not None and self._connection.is_connected
        free = self._flusher is None and not self._under_way and not self._recovering
        if connected and free and self._waiting and not self._speaking.locked():
            await self._send_some()
        self.flush_soon()

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
        while tasks := [task for task in (self._flusher, self._reader) if task is not None]:
            await asyncio.wait(tasks)
        if self._connection is not None:
            await self._connection.disconnect()

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
                while self._recovering or len(self._under_way) >= _CALLS:
                    self._room.clear()
                    await self._room.wait()
                await self._send_some()
        finally:
            self._flusher = None

    async def _send_some(self) -> None:
        async with self._speaking:
            call = _Call(self._next())
            if not call.operations:  # somebody else has sent it meanwhile
                return
            try:
                await self._say(call.operations)
            except redis.ConnectionError as exc:
                call.unsaid = exc
            except asyncio.CancelledError:
                self._expect(call)  # some of it may be on its way
                raise
            except Exception as exc:  # noqa: BLE001 — it is told to those who wait
                call.fail(exc)
                return
            self._expect(call)

    def _expect(self, call: _Call) -> None:
        """The answer to `call` comes next, or what is to be done without one."""
        self._under_way.append(call)
        if self._reader is None:
            self._reader = self.loop.create_task(self._read(), name="errands-batch-reader")

    def _next(self) -> list[tuple[Operation, Answer]]:
        some: list[tuple[Operation, Answer]] = []
        for line in (self._again, self._waiting):
            while line and len(some) < _MOST:
                some.append(line.popleft())
        return some

    async def _read(self) -> None:
        """Take the server's answers to what is under way, in their order."""
        try:
            while self._under_way:
                call = self._under_way[0]
                try:
                    answer = await self._next_answer(call)
                    self._ask_in_full(call.answer(replies(answer, call.operations, again=False)))
                except _TO_BE_SAID_AGAIN as exc:
                    await self._recover(exc)
                    continue
                except Exception as exc:  # noqa: BLE001 — it is told to those who wait
                    call.fail(exc)
                self._under_way.popleft()
                self._room.set()
        finally:
            self._reader = None
            self._room.set()

    def _ask_in_full(self, rest: list[tuple[Operation, Answer]]) -> None:
        self._again.extend(rest)
        self.flush_soon()

    async def _next_answer(self, call: _Call) -> Any:
        if call.unsaid is not None:
            raise call.unsaid
        try:
            async with asyncio.timeout(self._silence):
                return await self._connection.read_response()
        except (redis.ResponseError, redis.exceptions.BusyLoadingError):
            raise
        except _AWAY as exc:  # asyncio's TimeoutError is an OSError
            raise NotHeard(str(exc) or f"no answer within {self._silence} s") from exc

    async def _recover(self, problem: redis.RedisError) -> None:
        """Say what is under way again, a call after the other, until the server answers. Nothing else is sent
        meanwhile, so that the order stays."""
        self._recovering = True
        await self._speaking.acquire()  # who is sending just now comes first, and finds the line dead
        try:
            await self._connection.disconnect(nowait=True)
            unheard = problem if isinstance(problem, NotHeard) else None
            while self._under_way:
                call = self._under_way[0]
                try:
                    if self._out_of_time(problem):
                        raise call.unsaid or problem
                    found = await self._commit(call.operations, None if call.unsaid else unheard)
                    self._ask_in_full(call.answer(found))
                except Exception as exc:  # noqa: BLE001 — it is told to those who wait
                    call.fail(exc)
                self._under_way.popleft()
                # What was sent behind it may have been done.
                unheard = NotHeard("the connection was lost")
        finally:
            self._speaking.release()
            self._recovering = False
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
                answer = await self._call(said)
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

    async def _say(self, operations: list[Operation]) -> None:
        """Send a call. A `redis.ConnectionError` says that nothing of it was done."""
        if self._connection is None:
            self._connection = self._pool.make_connection()
        connection = self._connection
        try:
            async with asyncio.timeout(self._silence):  # a frozen server lets its clients connect
                if not connection.is_connected:
                    await connection.connect()
                await self._send(connection, operations)
        except _AWAY as exc:  # asyncio's TimeoutError is an OSError
            await connection.disconnect(nowait=True)
            raise redis.ConnectionError(str(exc) or f"no answer within {self._silence} s") from exc

    async def _call(self, operations: list[Operation]) -> Any:
        await self._say(operations)
        connection = self._connection
        try:
            async with asyncio.timeout(self._silence):
                return await self._answer(connection, operations)
        except redis.ResponseError:
            raise
        except _AWAY as exc:
            await connection.disconnect(nowait=True)
            raise NotHeard(str(exc) or f"no answer within {self._silence} s") from exc
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _send(self, connection: Any, operations: list[Operation], *, whole: bool = False) -> None:
        # redis-py packs commands for asyncio in Python: some thousand arguments would take it milliseconds.
        packed = pack_command(tuple(self._script.command(operations, whole=whole)))
        await connection.send_packed_command(packed)

    async def _answer(self, connection: Any, operations: list[Operation]) -> Any:
        try:
            return await connection.read_response()
        except redis.exceptions.NoScriptError:
            await self._send(connection, operations, whole=True)
        try:
            return await connection.read_response()
        except redis.ResponseError as exc:
            if not self._script.refused(exc):
                raise
            await self._send(connection, operations, whole=True)
            return await connection.read_response()
