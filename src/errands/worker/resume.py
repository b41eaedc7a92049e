"""Loops that go on where the attempt before left off.

A row's work is done when the next row is asked for; then its key is the checkpoint. It is kept in the run's
live state, and reaches the ledger with the other events, so that it outlives workers and Valkey.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from errands.core import clock
from errands.core.errors import CheckpointLost, ConfigurationError
from errands.core.events import Event, Kind
from errands.core.green import in_green, wait
from errands.worker.stop_flag import is_stopping

if TYPE_CHECKING:
    from errands.worker.run import Run

T = TypeVar("T")
Unit = TypeVar("Unit")
Mark = dict[str, Any]

_MOST_LOOPS = 100
_LONGEST_KEY = 1000  # bytes of JSON
_TOLD_EVERY = 1.0  # seconds between two checkpoints that the ledger hears of


class HandOver(BaseException):
    """The worker stops, and the run goes on elsewhere from its checkpoint. No `Exception`: see
    RunCancelled."""


_around: ContextVar[Loop[Any, Any] | None] = ContextVar("errands_loop", default=None)


class Checkpoints:
    """How far the loops of one run came, by their names."""

    def __init__(self, run: Run) -> None:
        self.written_at = float("-inf")
        self._run = run
        self._marks: dict[str, Mark] | None = None
        self._open: set[str] = set()
        self._pending = False
        self._told_at = float("-inf")

    def get(self, name: str) -> Mark | None:
        """How far the loop came, in this attempt or one before."""
        if self._marks is None:
            run = self._run
            found = run.read_checkpoint()
            if found is None and (run.attempt > 1 or run.hop > 0):  # the server may have lost it
                found = _aside(lambda: run.effects.checkpoint(run.id))
            self._marks = found or {}
        return self._marks.get(name)

    def open(self, name: str) -> Mark | None:
        """A loop begins."""
        mark = self.get(name)
        if name in self._open:
            raise ConfigurationError(
                f"{self._run.task}: two loops of one run are named {name!r}, and would take each other's "
                "checkpoint: give them names (run.resume(…, name=…))"
            )
        if len(self._open) >= _MOST_LOOPS:
            raise ConfigurationError(
                f"{self._run.task}: more than {_MOST_LOOPS} loops of one run are to be resumed"
            )
        self._open.add(name)
        return mark

    def set(self, name: str, mark: Mark) -> None:
        """The loop has come to `mark`. It is not written yet."""
        self._marks = {**(self._marks or {}), name: mark}
        self._pending = True

    def forget(self, names: Iterable[str]) -> None:
        """What loops inside of another did belongs to a row of that one which is done."""
        self._open.difference_update(names)
        self._marks = {name: mark for name, mark in (self._marks or {}).items() if name not in set(names)}

    def write(self, *, wait: bool, last: bool = False) -> None:
        """Write what was set.

        Args:
            wait: until it is written; else only until nothing that is said later can overtake it.
            last: nothing more may follow, so the ledger is to know of it as well.
        """
        now = clock.timestamp()
        quiet = not last and now - self._told_at < _TOLD_EVERY
        if not quiet:
            self._told_at = now
        self.written_at, self._pending = now, False
        event = Event(kind=Kind.CHECKPOINT, run_id=self._run.id, at=now, checkpoint=self._marks)
        self._run.tell(event, quiet=quiet, wait=wait)

    def flush(self) -> None:
        """Write what was set and not written, at the end of an attempt that another one follows."""
        if self._pending:
            self.write(wait=True, last=True)


class Loop(Generic[T, Unit]):
    """Rows that were not done before. Made by `run.resume`; see there. For `for` and for `async for`."""

    def __init__(
        self, run: Run, rows: Iterable[T] | AsyncIterable[T], *, key: Callable[[T], Any] | None, name: str,
        ordered: bool, every: float, total: int | None, chunk: int | None, commit: Callable[[], Any] | None,
    ) -> None:  # fmt: skip
        if not every >= 0:
            raise ConfigurationError(f"{run.task}: run.resume(every={every}): the seconds must be 0 or more")
        if chunk is not None and chunk < 1:
            raise ConfigurationError(f"{run.task}: run.resume(chunk={chunk}): a chunk has 1 row or more")
        self._run, self._rows, self._key, self._name = run, rows, key, name
        self._ordered = ordered and key is not None
        self._every, self._total, self._size, self._commit = every, total, chunk, commit
        self._checkpoints = run.checkpoints
        self._start: Mark = {}
        self._index = -1  # of the row at hand in `rows`
        self._before: Any = None  # the key of the row before it
        self._at: Any = None  # the key of the row at hand
        self._chunk: list[T] = []
        self._rows_of_unit = 1
        self._done = 0
        self._unwritten = self._working = False
        self._inner: list[str] = []
        self._outer: Loop[Any, Any] | None = None

    def __iter__(self) -> Iterator[Unit]:
        if not isinstance(self._rows, Iterable):
            raise TypeError("these rows are asynchronous: write `async for … in run.resume(…)`")
        self._begin()
        for row in self._rows:
            unit = self._take(row)
            if unit:
                with self._at_work():
                    yield unit[0]
                if self._unit_done():
                    self._commit_plainly()
                    self._write()
        if self._chunk:
            with self._at_work():
                yield self._rest()
            self._unit_done()
        self._commit_plainly()
        self._end()

    async def __aiter__(self) -> AsyncIterator[Unit]:
        self._begin()
        rows = self._rows if isinstance(self._rows, AsyncIterable) else _asynchronous(self._rows)
        async for row in rows:
            unit = self._take(row)
            if unit:
                with self._at_work():
                    yield unit[0]
                if self._unit_done():
                    await self._commit_async()
                    self._write()
        if self._chunk:
            with self._at_work():
                yield self._rest()
            self._unit_done()
        await self._commit_async()
        self._end()

    # -- from row to row

    def _begin(self) -> None:
        outer = _around.get()
        while outer is not None and (not outer._working or outer._run is not self._run):
            outer = outer._outer
        self._outer = outer
        mark = self._checkpoints.open(self._name) or {}
        # What a loop inside of another did belongs to one row of that one.
        self._start = mark if mark.get("in") == self._place() else {}
        if self._outer is not None:
            self._outer._inner.append(self._name)
        self._done = self._start.get("count", 0)
        if self._start and self._ordered != ("key" in self._start):
            raise CheckpointLost(f"{self._what()} was ordered before and is not now, or the other way round")

    def _take(self, row: T) -> list[Any]:
        """What is to be done next, in a list: the row, or a chunk that is full; nothing while rows are
        passed."""
        self._index += 1
        self._at = self._index if self._key is None else _checked(self._key(row))
        if self._passed():
            return []
        if self._size is None:
            return [row]
        self._chunk.append(row)
        return [self._rest()] if len(self._chunk) == self._size else []

    def _rest(self) -> Any:
        chunk, self._chunk = self._chunk, []
        self._rows_of_unit = len(chunk)
        return chunk

    def _passed(self) -> bool:
        """Whether the row at hand was done before."""
        at, before, self._before = self._at, self._before, self._at
        if self._ordered:
            if self._index and not _after(at, before):
                raise ValueError(
                    f"{self._what()}: its keys must ascend, and {at!r} came after {before!r}. Order the rows "
                    "by their key, or say ordered=False where they come in the same order each time"
                )
            return bool(self._start) and not _after(at, self._start["key"])
        count = self._start.get("count", 0)
        if self._index == count - 1 and self._key is not None and at != self._start["last"]:
            raise CheckpointLost(
                f"{self._what()}: row {count} was {self._start['last']!r} in the attempt before, and is "
                f"{at!r} now"
            )
        return bool(self._index < count)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The block is the work on one row or chunk; loops that begin meanwhile are inside of this one."""
        self._inner, self._working = [], True
        _around.set(self)
        try:
            yield
        finally:
            self._working = False

    def _unit_done(self) -> bool:
        """The next row is asked for. Whether it is time to write that down."""
        self._done += self._rows_of_unit
        self._unwritten = True
        if self._inner:
            self._checkpoints.forget(self._inner)
        if self._commit is None:
            self._set()
        self._run.check(within=1.0)
        if self._total is not None:
            self._run.progress(min(self._done, self._total), self._total)
        return (
            is_stopping()
            or bool(self._inner)  # the next row's inner loops must not be taken for this row's
            or clock.timestamp() - self._checkpoints.written_at >= self._every
        )

    def _set(self) -> None:
        mark = {"key" if self._ordered else "last": self._at, "count": self._done}
        place = self._place()
        self._checkpoints.set(self._name, mark if place is None else {**mark, "in": place})

    def _place(self) -> Any:
        """Within which row of the loop around this one it is."""
        return None if self._outer is None else self._outer._at

    def _write(self) -> None:
        self._set()
        self._unwritten = False
        stopping = is_stopping()
        self._checkpoints.write(wait=self._every == 0 or stopping, last=stopping)
        self._run.check(within=math.inf)
        if stopping:
            raise HandOver

    def _end(self) -> None:
        if not self._ordered and self._index + 1 < self._start.get("count", 0):
            raise CheckpointLost(
                f"{self._what()}: {self._start['count']} rows were done before, and there are "
                f"{self._index + 1} now"
            )
        if self._unwritten:
            self._set()
            self._checkpoints.write(wait=self._every == 0, last=True)

    def _commit_plainly(self) -> None:
        if self._commit is not None and inspect.isawaitable(made := self._commit()):
            if inspect.iscoroutine(made):
                made.close()
            raise TypeError("run.resume(commit=…) is asynchronous: write `async for … in run.resume(…)`")

    async def _commit_async(self) -> None:
        if self._commit is not None:
            made = self._commit()
            if inspect.isawaitable(made):
                await made

    def _what(self) -> str:
        return (
            f"{self._run.task}: run.resume({self._name!r})" if self._name else f"{self._run.task}: run.resume"
        )


def _after(key: Any, other: Any) -> bool:
    try:
        return bool(key > other)
    except TypeError:
        raise TypeError(
            f"run.resume: the keys {key!r} and {other!r} cannot be compared; use keys of one kind, or "
            "ordered=False"
        ) from None


def _checked(key: Any) -> Any:
    """The key as it comes back from JSON."""
    kept = _plain(key)
    if len(msgspec.json.encode(kept)) > _LONGEST_KEY:
        raise ValueError(f"run.resume: a key of more than {_LONGEST_KEY} bytes; use the row's id")
    return kept


def _plain(key: Any) -> Any:
    if isinstance(key, list | tuple):
        return [_plain(part) for part in key]
    whole = isinstance(key, int) and -(2**63) <= key < 2**63
    if whole or isinstance(key, str) or (isinstance(key, float) and math.isfinite(key)):
        return key
    raise TypeError(
        f"run.resume: the key {key!r} must be a number, a text, or a list of them; write str(…) or "
        ".isoformat()"
    )


async def _asynchronous(rows: Iterable[T]) -> AsyncIterator[T]:
    for row in rows:
        yield row


def _aside(function: Callable[[], T]) -> T:
    """Call blocking code; a task on the event loop lets the loop go on meanwhile."""
    return wait(asyncio.to_thread(function)) if in_green() else function()
