"""Many calls, sent together: checked one by one, committed a chunk at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

from errands.core.errors import InvalidArguments, SecretError
from errands.sending import refusals
from errands.sending.calls import Call, read_call
from errands.sending.one import Later
from errands.sending.waiting import Waiting
from errands.task import Task

T = TypeVar("T")

_MOST_BYTES = 1024 * 1024  # of messages in one commit: the server has others to serve


class ManyCalls(Waiting):
    """An app that sends calls in bulk."""

    def send_many(
        self,
        task: Task[..., Any],
        calls: Iterable[Any],
        chunk: int,
        owner: str | None,
        options: dict[str, Any],
    ) -> list[str]:
        """Send many calls, each chunk of them in one commit: what `Task.delay_many` does.

        While the server takes a chunk, the next one is made ready.
        """
        sent: list[str] = []
        on_its_way: list[tuple[list[Call], Callable[[], object]]] = []

        def accepted() -> int:
            while on_its_way:
                batch, answered = on_its_way.pop()
                answered()
                sent.extend([call.run_id for call in batch])
            return len(sent)

        try:
            for batch in self._batches(task, calls, chunk, owner, options, accepted):
                before = accepted()
                if isinstance(batch[0], Call):
                    on_its_way.append((batch, self._start(batch, before)))
                else:
                    sent += [later().id for later in batch]
        finally:
            accepted()
        return sent

    async def asend_many(
        self,
        task: Task[..., Any],
        calls: Iterable[Any],
        chunk: int,
        owner: str | None,
        options: dict[str, Any],
    ) -> list[str]:
        """`send_many` for asyncio code."""
        sent: list[str] = []
        batches = self._batches(task, calls, chunk, owner, options, lambda: len(sent))
        async for batch in _apart(batches, task.rules.offload):
            if isinstance(batch[0], Call):
                await self._acommit(batch, before=len(sent))
                sent += [call.run_id for call in batch]
            else:
                for later in batch:
                    sent.append((await asyncio.to_thread(later)).id)
        return sent

    def _batches(
        self, task: Task[..., Any], calls: Iterable[Any], chunk: int, owner: str | None,
        options: dict[str, Any], accepted: Callable[[], int],
    ) -> Iterator[list[Call] | list[Later]]:  # fmt: skip
        """The calls, checked, in batches. `accepted` waits for what was sent, and says how many that is."""
        if chunk < 1:
            raise ValueError(f"chunk={chunk}: how many calls are sent together; use 1 or more")
        batch: list[Any] = []
        weight = 0
        context = self.context()
        for index, given in enumerate(calls):
            try:
                args, kwargs, own = read_call(task.name, given)
                if own or options:
                    own = {**options, **own}
                task_id = own.pop("task_id", None)
                ready = self._ready(context, task, args, kwargs, task_id, own.pop("owner", owner), own)
            except (InvalidArguments, SecretError) as exc:
                raise refusals.of_call(exc, index, accepted()) from exc
            if batch and isinstance(ready, Call) is not isinstance(batch[0], Call):
                yield batch
                batch, weight, context = [], 0, self.context()
            batch.append(ready)
            weight += ready.size if isinstance(ready, Call) else 0
            if len(batch) >= chunk or weight >= _MOST_BYTES:
                yield batch
                batch, weight, context = [], 0, self.context()
        if batch:
            yield batch


async def _apart(batches: Iterator[T], in_thread: bool) -> AsyncIterator[T]:
    """`batches`, each made in a thread where making it may block."""
    while batch := await asyncio.to_thread(next, batches, None) if in_thread else next(batches, None):
        yield batch
