"""The run that a task is working on, as the task sees it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from errands.broker.runs import Reply, Verdict
from errands.core import clock
from errands.core.effects import EffectStore
from errands.core.errors import ConfigurationError, RunCancelled, Snooze
from errands.core.events import Event, Kind
from errands.core.limits import Limit
from errands.core.scrubbing import scrubbed
from errands.core.states import State
from errands.worker.effects import Effect, InlineEffects
from errands.worker.resume import Checkpoints, Loop
from errands.worker.stop_flag import is_stopping

if TYPE_CHECKING:
    from errands.batch import Batch
    from errands.worker.host import RunLog

P = ParamSpec("P")
T = TypeVar("T")

# The run that code is part of; set around each attempt.
current: ContextVar[Run | None] = ContextVar("errands_run", default=None)
_WHY = {
    Verdict.REFUSED: "the run was revoked, or has ended",
    Verdict.STALE: "another attempt at the run has begun since",
}


class Run:
    """One attempt at a run. Ask for it by type: `def report(student_id: int, *, run: Run)`.

    One made by hand, as a test does to call a task's function, keeps all to itself.

    Attributes:
        id: the run's id, the same over all attempts; Celery's task id.
        task: the task's name.
        attempt: 1 for the first attempt. A snooze does not count.
        owner: who started the run, or None.
        batch: the batch that it is a member of, or None. `with run.batch:` sends more members to it.
        schedule: the name of the schedule that sent it, or None.
    """

    def __init__(
        self, id: str, task: str, *, attempt: int = 1, owner: str | None = None, hop: int = 0,
        log: RunLog | None = None, interval: float = 0.25, effects: Callable[[], EffectStore] | None = None,
        result_max: int = 64 * 1024, batch: Batch | None = None,
        schedule: str | None = None, due: float | None = None, limits: Mapping[str, Limit] | None = None,
    ) -> None:  # fmt: skip
        self.id = id
        self.task = task
        self.attempt = attempt
        self.owner = owner
        self.batch = batch
        self.hop = hop
        self.schedule = schedule
        self._due = due
        self.result_max = result_max
        self._log = log
        self._interval = interval
        self._effects = effects
        self._limits = limits or {}
        self.secrets: list[str] = []  # texts that nothing of what is told may hold
        self._token = ""
        self._checkpoints: Checkpoints | None = None
        self._told_at = self._heard_at = float("-inf")
        self._over: Verdict | None = None
        self._last: dict[str, Any] | None = None

    @property
    def scheduled_for(self) -> datetime | None:
        """The due time that a schedule sent this run for, in UTC: the run may begin later, or much later
        after an outage. None for any other run, and for one that a person started from a schedule."""
        return None if self._due is None else datetime.fromtimestamp(self._due, UTC)

    # -- telling

    def progress(self, current: int, total: int | None = None, note: str = "") -> None:
        """Tell how far the work is; who watches sees it within moments.

        May be called as often as one likes: calls that follow each other too fast are not sent, except the
        last one (`current == total`), and the newest is always part of the run's end.

        Args:
            current: what is done so far, 0 or more.
            total: what there is to do in all; None when nobody knows.
            note: a few words for people.

        Raises:
            ValueError: a negative number.
            RunCancelled: see `check`.
        """
        self._raise_if_over()
        if current < 0 or (total is not None and total < 0):
            raise ValueError(f"progress({current}, {total}): the numbers must not be negative")
        percentage = None if total is None else (100 if total == 0 else min(100, int(100 * current / total)))
        note = scrubbed(note, self.secrets)
        self._last = {"current": current, "total": total, "percentage": percentage, "note": note}
        now = clock.timestamp()
        if current != total and now - self._told_at < self._interval:
            return
        self._told_at = now
        self.tell(Event(kind=Kind.PROGRESS, run_id=self.id, at=now, progress=self._last))
        self._raise_if_over()

    def log(self, text: str) -> None:
        """A line for those who watch this run live; it is no part of the record."""
        self.tell(
            Event(
                kind=Kind.LOG, run_id=self.id, at=clock.timestamp(), note=scrubbed(text, self.secrets)[:2000]
            )
        )

    @property
    def last_progress(self) -> dict[str, Any] | None:
        """What `progress` was told last, sent or not."""
        return self._last

    # -- cancelling

    def check(self, *, within: float | None = None) -> None:
        """End this attempt if the run was revoked, or is another attempt's by now. For long work between
        rows.

        `progress` and `resume` do it by themselves.

        Args:
            within: seconds that an answer of before still holds; by default those between two progress events
                (ERRANDS_PROGRESS_INTERVAL).

        Raises:
            RunCancelled: no `Exception`; let it pass. What the attempt still brings is not recorded.
        """
        now = clock.timestamp()
        holds = self._interval if within is None else within
        if self._over is None and self._log is not None and now - self._heard_at > holds:
            self.hear(self._log.check(self.id, hop=self.hop, attempt=self.attempt))
        self._raise_if_over()

    @property
    def cancelled(self) -> bool:
        """`check` as a question."""
        try:
            self.check()
        except RunCancelled:
            return True
        return False

    @property
    def stopping(self) -> bool:
        """Whether the worker stops, and wants work that can go on elsewhere to do so: end this attempt by
        `raise Snooze(0)` where the next one finds what is done. `resume` does it by itself."""
        return is_stopping()

    # -- limits

    async def allow(self, name: str, count: int = 1, *, patience: float = 1.0) -> int:
        """Take `count` from a limit that `app.add_limit` declared, for what this run does next. In tasks that
        are `async def`.

        In no window of the limit's period is more given than its rate, over all workers. It is given whole;
        where the limit is lower than `count` by now, the whole limit is given.

        Args:
            name: of the limit.
            count: how much is done next, from 1 to the limit's rate.
            patience: seconds to wait here; for a longer wait the run is snoozed, and begins again from its
                top, without an attempt used up.

        Returns:
            How much was given: `count`, unless the limit was lowered below it.

        Raises:
            Snooze: it is to be asked for again later; let it pass.
            ConfigurationError: there is no such limit, or `count` does not fit into it.
            redis.RedisError: Valkey does not answer.
        """
        if self._log is None:
            return count
        limit = self._limits.get(name)
        if limit is None or not 0 < count <= limit.bound.most:
            known = ", ".join(f"{known} ({each.rate})" for known, each in sorted(self._limits.items()))
            raise ConfigurationError(
                f"{self.task}: run.allow({name!r}, {count}): there is no such limit, or it never gives so "
                f"much; app.add_limit declared {known or 'none'}"
            )
        while True:
            given, wait = await asyncio.to_thread(self._log.take, name, count, limit.bound)
            if given:
                return given
            if wait > patience:
                raise Snooze(wait, f"waits for the limit {name} ({limit.rate})")
            await asyncio.sleep(wait)

    # -- effects

    @property
    def idempotency_key(self) -> str:
        """A key to pass on to whom this run asks for something once, the same at every attempt and delivery.

        Where it asks for several things, each needs its own: `run.effect("charge").key`.
        """
        return self.id

    @overload
    def once(
        self, name: str, function: Callable[P, Coroutine[Any, Any, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[Any]: ...

    @overload
    def once(self, name: str, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    def once(self, name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do something outside of the database once, however often the run is tried: `docs/effects.md`.

        `receipt = await run.once("charge", gateway.charge, amount, key=run.idempotency_key)`. Arguments,
        result and errors are those of `Effect.once`; `effect` has options.

        Args:
            name: of the effect, within the run: another name is another effect.
            function: does it; an `async def` is awaited. Its errors say that it did not happen, except
                time-outs, broken connections and `OutcomeUnknown`.
        """
        return self.effect(name).once(function, *args, **kwargs)

    def effect(
        self,
        name: str,
        *,
        scope: str | None = None,
        unknown: type[Exception] | tuple[type[Exception], ...] = (),
        safe_to_repeat: bool = False,
    ) -> Effect:
        """An effect with options: `run.effect("charge", unknown=httpx.ReadTimeout).once(gateway.charge,
        amount)`.

        Args:
            name: as with `once`.
            scope: what the effect belongs to, such as "payment:17", where several runs must not do it twice;
                by default this run.
            unknown: further errors that leave it open whether the effect happened.
            safe_to_repeat: the other side takes the effect's `key` and knows it again, so what is unknown may
                simply be done once more.

        Raises:
            ConfigurationError: a name or a scope that cannot be kept.
        """
        kinds = unknown if isinstance(unknown, tuple) else (unknown,)
        return Effect(self, name, scope, kinds, safe_to_repeat)

    # -- resuming

    @overload
    def resume(
        self, rows: Iterable[T] | AsyncIterable[T], *, key: Callable[[T], Any] | None = None, name: str = "",
        ordered: bool = True, every: float = 1.0, total: int | None = None,
        commit: Callable[[], Any] | None = None, chunk: None = None,
    ) -> Loop[T, T]: ...  # fmt: skip

    @overload
    def resume(
        self, rows: Iterable[T] | AsyncIterable[T], *, key: Callable[[T], Any] | None = None, name: str = "",
        ordered: bool = True, every: float = 1.0, total: int | None = None,
        commit: Callable[[], Any] | None = None, chunk: int,
    ) -> Loop[T, list[T]]: ...  # fmt: skip

    def resume(
        self, rows: Iterable[T] | AsyncIterable[T], *, key: Callable[[T], Any] | None = None, name: str = "",
        ordered: bool = True, every: float = 1.0, total: int | None = None,
        commit: Callable[[], Any] | None = None, chunk: int | None = None,
    ) -> Loop[T, Any]:  # fmt: skip
        """The rows that were not done before: `for row in run.resume(rows, key=lambda row: row.id)`.

        A row's work counts as done, and must be durable, when the next row is asked for. See
        `docs/resume.md`.

        Args:
            rows: in the same order each time. Also asynchronous ones, for `async for`.
            key: what a row is known by: a number, a text, or a list of them. Without it, its position.
            name: of the loop, where a run has several.
            ordered: the keys ascend, so rows may come and go meanwhile, and `rows` may begin after
                `checkpoint()`. Otherwise all rows must be there again, in their places.
            every: seconds of work that may be done again after a crash, at most; 0 writes after each row, and
                waits for it.
            total: how many rows there are in all, for `progress`.
            commit: called before each checkpoint is written, such as `session.commit`; then rows need not
                commit.
            chunk: give lists of so many rows in place of rows.

        Raises:
            ValueError, TypeError: keys that do not ascend, or cannot be kept.
            CheckpointLost: the rows are not those of the attempt before.
            ConfigurationError: a second loop of the same name.
            RunCancelled: see `check`.
        """
        return Loop(
            self,
            rows,
            key=key,
            name=name,
            ordered=ordered,
            every=every,
            total=total,
            chunk=chunk,
            commit=commit,
        )

    def checkpoint(self, name: str = "") -> Any:
        """The key of the last row that is done, in a loop with ascending keys; None before the first one.

        For a query that leaves out what is done: `select(…).where(User.id > (run.checkpoint() or 0))`.
        """
        mark = self.checkpoints.get(name)
        return None if mark is None else mark.get("key")

    # -- for the modules that make up the above

    @property
    def effects(self) -> EffectStore:
        """Where this run's effects are kept."""
        if self._effects is None:
            own = InlineEffects()
            self._effects = lambda: own
        return self._effects()

    @property
    def checkpoints(self) -> Checkpoints:
        """How far this run's loops came."""
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(self)
        return self._checkpoints

    @property
    def token(self) -> str:
        """What tells this attempt from any other, whatever their numbers."""
        self._token = self._token or uuid.uuid4().hex
        return self._token

    def tell(self, event: Event, *, quiet: bool = False, wait: bool = False) -> None:
        """Write what this attempt has to tell: see `LiveRuns.tell`."""
        if self._log is not None:
            self._log.tell(event, hop=self.hop, attempt=self.attempt, heard=self.hear, quiet=quiet, wait=wait)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """What the live state has."""
        self._heard_at = clock.timestamp()
        return self._log.checkpoint(self.id) if self._log is not None else None

    def leave(self) -> str:
        """This attempt has ended since it is not to go on. Others may have what it held; says why it
        ended."""
        if self._over is Verdict.REFUSED and self._log is not None:
            event = Event(kind=Kind.REVOKED, run_id=self.id, at=clock.timestamp(), task=self.task)
            self._log.record(event, hop=self.hop, attempt=self.attempt)
        return _WHY[self._over] if self._over is not None else "it was cancelled from within"

    def is_at_work(self, run_id: str, attempt: int) -> bool:
        """Whether another run is in its attempt of that number."""
        other = self._log.get(run_id) if self._log is not None else None
        return other is not None and other.state is State.RUNNING and other.attempt == attempt

    def flush(self) -> None:
        """Write what is not written yet, before another attempt follows."""
        if self._checkpoints is not None:
            self._checkpoints.flush()

    def child_id(self, key: str) -> str:
        """An id for a follow-up, the same each time this run asks with the same `key`.

        Sent with it (`task.apply_async(…, task_id=run.child_id("mail"))`), a follow-up that a second
        delivery or a retry sends again is the same run, and is not done twice.
        """
        return str(uuid.uuid5(_as_uuid(self.id), key))

    @contextmanager
    def current(self) -> Iterator[Run]:
        """Make this the current run of the context inside the block."""
        token = current.set(self)
        try:
            yield self
        finally:
            current.reset(token)

    def _raise_if_over(self) -> None:
        if self._over is not None:
            raise RunCancelled(_WHY[self._over])

    def hear(self, reply: Reply) -> None:
        """What the server says to what this attempt has told."""
        self._heard_at = clock.timestamp()
        if reply.verdict in _WHY:
            self._over = reply.verdict


def current_run() -> Run | None:
    """The run that this code is part of; None outside of one."""
    return current.get()


def _as_uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:  # an id that a plain Celery producer chose itself
        return uuid.uuid5(uuid.NAMESPACE_OID, text)
