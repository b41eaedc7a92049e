"""Effects outside of our database (a payment, a mail), done once over all attempts and deliveries of a run.

An effect is claimed before it is done and noted when it is done. What happened in between, when an attempt
ends there, nobody can know: it is said so, and the effect is not repeated by itself. The claim is a row whose
primary key lets one through, so two copies of a run cannot both do it.
"""

from __future__ import annotations

import inspect
import json
import threading
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, overload

import msgspec
from celery.exceptions import SoftTimeLimitExceeded

from errands.core import clock
from errands.core.effects import EffectRow, Standing
from errands.core.errors import ConfigurationError, EffectBusy, EffectUnknown, OutcomeUnknown

if TYPE_CHECKING:
    from errands.worker.run import Run

P = ParamSpec("P")

# Of a request that ended in one of these, the other side may have heard all.
AMBIGUOUS: tuple[type[Exception], ...] = (
    OutcomeUnknown, TimeoutError, ConnectionResetError, ConnectionAbortedError,
)  # fmt: skip
_INTERRUPTED = (SoftTimeLimitExceeded,)
_IN_FLIGHT = timedelta(
    seconds=15
)  # so long an attempt that is no longer the newest may still be at an effect
_LOOK_AGAIN = 5.0  # seconds
_LONGEST = 200  # characters of a name or a scope
_LONGEST_ERROR = 2000


class Effect:
    """One effect of a run. Made by `run.effect`; see there."""

    def __init__(
        self,
        run: Run,
        name: str,
        scope: str | None,
        unknown: tuple[type[Exception], ...],
        safe_to_repeat: bool,
    ) -> None:
        for what, text in (("name", name), ("scope", scope)):
            if text is not None and not (0 < len(text) <= _LONGEST and text.isprintable()):
                raise ConfigurationError(
                    f"run.effect({name[:80]!r}): the {what} must be 1 to {_LONGEST} printable characters"
                )
        self.name = name
        self.scope = scope or run.id
        self.key = run.child_id(f"effect:{name}") if scope is None else _shared_key(scope, name)
        self._run = run
        self._unknown = (*AMBIGUOUS, *unknown)
        self._safe = safe_to_repeat

    def __repr__(self) -> str:
        return f"Effect({self.name!r}, scope={self.scope!r})"

    @overload
    def once(
        self, function: Callable[P, Coroutine[Any, Any, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[Any]: ...

    @overload
    def once(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...

    def once(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `function`, unless this effect was done before; to be awaited for an `async def`.

        Returns:
            What it returned, as JSON has it, the first time as every time.

        Raises:
            EffectUnknown: it was begun before, or now, and nobody can say whether it happened.
            EffectBusy: somebody else is at it; the run looks again in a few seconds, uncounted.
            TypeError: `function` is no `async def`, and returned something to be awaited.
            Exception: what `function` raised. The effect has not happened, and may be tried again.
        """
        if _is_async(function):
            return self._asynchronously(function, args, kwargs)
        return self._plainly(function, args, kwargs)

    # -- two ways to take the same steps

    def _plainly(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        steps = self._steps()
        step = next(steps)
        go: Callable[[Any], Callable[[], Any] | None]
        while True:
            try:
                answer = self._call(function, args, kwargs) if step is None else step()
            except BaseException as error:  # noqa: BLE001 — the steps say what it means
                go, argument = steps.throw, error
            else:
                go, argument = steps.send, answer
            try:
                step = go(argument)
            except StopIteration as end:
                return end.value

    async def _asynchronously(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        steps = self._steps()
        step = next(steps)
        go: Callable[[Any], Callable[[], Any] | None]
        while True:
            try:
                answer = await (function(*args, **kwargs) if step is None else self._run.effects.apart(step))
            except BaseException as error:  # noqa: BLE001 — as above
                go, argument = steps.throw, error
            else:
                go, argument = steps.send, answer
            try:
                step = go(argument)
            except StopIteration as end:
                return end.value

    def _call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        answer = function(*args, **kwargs)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()
            raise TypeError(
                f"run.once({self.name!r}): {getattr(function, '__qualname__', function)!s} returned "
                "something to be awaited; give the `async def` function itself, and its arguments after it"
            )
        return answer

    # -- the steps

    def _steps(self) -> Generator[Callable[[], Any] | None, Any, Any]:
        """Yields what is to be asked of the store, and None where the effect itself is to be done."""
        store = self._run.effects
        mine = EffectRow(
            self.scope, self.name, Standing.BEGUN, self._run.id, self._run.attempt, self._run.token,
            clock.now(), task=self._run.task,
        )  # fmt: skip
        if self._safe:
            there = yield lambda: store.get(self.scope, self.name)
        else:
            there = yield lambda: store.claim(mine)
        if there is not None:
            if there.state is Standing.DONE:
                return there.result
            if not self._safe:
                yield lambda: self._stands_in_the_way(there)
        try:
            value = yield None
        except (
            GeneratorExit
        ):  # the loop is gone, and nothing can be asked any more: as if the process had died
            raise
        except BaseException as error:
            failure = error
            if not self._safe:
                yield lambda: self._failed(mine, failure)
            raise
        done = replace(mine, state=Standing.DONE, result=_plain(value, self._run.result_max), at=clock.now())
        yield from self._note(done)
        return done.result

    def _note(self, done: EffectRow) -> Generator[Callable[[], Any], Any, None]:
        store = self._run.effects
        token = None if self._safe else done.token
        try:
            yield lambda: store.put(done, token=token)
        except BaseException:  # a time limit, say: it has happened, and that must not be forgotten
            yield lambda: store.put(done, token=token)
            raise

    def _failed(self, mine: EffectRow, error: BaseException) -> None:
        """Keep what the error says about the effect."""
        store = self._run.effects
        if isinstance(error, Exception) and not isinstance(error, (*self._unknown, *_INTERRUPTED)):
            store.drop(mine)
            return
        text = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
        row = replace(mine, state=Standing.UNKNOWN, error=text, at=clock.now())
        store.put(row, token=mine.token)
        if isinstance(error, self._unknown) and not isinstance(error, OutcomeUnknown):
            raise self._is_unknown(row) from error

    def _stands_in_the_way(self, there: EffectRow) -> None:
        """Raises, since the effect was begun before."""
        if there.state is Standing.UNKNOWN:
            raise self._is_unknown(there)
        if there.token == self._run.token or clock.now() - there.at < _IN_FLIGHT or self._lives(there):
            raise EffectBusy(_LOOK_AGAIN, f"the effect {self.name!r} is at work in run {there.run_id}")
        text = f"attempt {there.attempt} of run {there.run_id} ended while it was at it"
        row = replace(there, state=Standing.UNKNOWN, error=text)
        self._run.effects.put(row, token=there.token)
        raise self._is_unknown(row)

    def _lives(self, there: EffectRow) -> bool:
        """Whether another run, which shares this effect, is still in the attempt that began it."""
        return there.run_id != self._run.id and self._run.is_at_work(there.run_id, there.attempt)

    def _is_unknown(self, row: EffectRow) -> EffectUnknown:
        shared = "" if row.scope == row.run_id else f" of {row.scope!r}"
        return EffectUnknown(
            f"the effect {row.name!r}{shared} was begun at {row.at:%Y-%m-%d %H:%M:%S} UTC by run "
            f"{row.run_id}, and nobody can say whether it happened ({row.error}). It is not repeated: look "
            "at the other side, settle it as done or not done, and retry the run"
        )


class InlineEffects:
    """Effects in the memory of this process."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], EffectRow] = {}
        self._lock = threading.Lock()

    def claim(self, row: EffectRow) -> EffectRow | None:
        """As `EffectStore.claim`."""
        with self._lock:
            return None if self._rows.setdefault(row.key, row) is row else self._rows[row.key]

    def get(self, scope: str, name: str) -> EffectRow | None:
        """As `EffectStore.get`."""
        return self._rows.get((scope, name))

    def put(self, row: EffectRow, *, token: str | None) -> bool:
        """As `EffectStore.put`."""
        with self._lock:
            there = self._rows.get(row.key)
            fits = token is None or (there is not None and there.token == token)
            if fits:
                self._rows[row.key] = row
            return fits

    def drop(self, row: EffectRow) -> None:
        """As `EffectStore.drop`."""
        with self._lock:
            there = self._rows.get(row.key)
            if there is not None and there.token == row.token:
                del self._rows[row.key]

    def checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """Nothing: in inline mode no run outlives its process."""
        return None

    async def apart(self, function: Callable[[], Any]) -> Any:
        """As `EffectStore.apart`."""
        return function()

    def of_run(self, run_id: str) -> list[EffectRow]:
        """The effects that a run claimed, in the order of their beginning."""
        return sorted((row for row in self._rows.values() if row.run_id == run_id), key=lambda row: row.at)

    def clear(self) -> None:
        """Forget everything."""
        self._rows.clear()


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 — an object with an asynchronous call
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _shared_key(scope: str, name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"errands effect {len(scope)} {scope} {name}"))


def _plain(value: Any, limit: int) -> Any:
    """`value` as it comes back from the store: JSON of at most `limit` bytes, else a note of its size."""
    if value is None or isinstance(value, bool | int):
        return value
    try:
        encoded = msgspec.json.encode(value, enc_hook=str)
    except (TypeError, ValueError, RecursionError):
        encoded = json.dumps(str(value)).encode()
    if len(encoded) > limit:
        return {"truncated": True, "bytes": len(encoded)}
    return msgspec.json.decode(encoded)
