"""Arguments that are too large for a message, of tasks with `offload=True`: kept apart, referred to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from errands.broker.message import Payload, any_payload, checked_payload
from errands.core import payloads
from errands.core.errors import ErrandsError, PayloadTooLarge, PayloadUnavailable, Snooze
from errands.core.green import in_green, wait
from errands.core.limits import refuse_excess
from errands.core.payloads import PayloadStore, Reference
from errands.sending.celerys_way import CelerysWay
from errands.task import Task
from errands.worker.loop import process_loop

if TYPE_CHECKING:
    from errands.store.engine import Database

logger = logging.getLogger("errands")

T = TypeVar("T")
Call = tuple[Sequence[Any], Mapping[str, Any]]

_LOOK_AGAIN = 15.0  # seconds


class Offloading(CelerysWay):
    """An app that keeps large arguments apart from messages."""

    _payload_store: PayloadStore | None = None

    if TYPE_CHECKING:

        @property
        def database(self) -> Database: ...

    def offload_to(self, store: PayloadStore) -> None:
        """Keep large arguments in `store` instead of the ledger's database.

        Every process of the app must be told of the same store. What `delay_on_commit` sends stays in the
        database: it is written in the session's transaction.
        """
        self._payload_store = store

    # -- sending

    def checked(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Payload:
        """A call as its message carries it: checked, JSON-ready, secrets sealed, not too large.

        Of a task with `offload=True` it may be larger than a message should be: see `offloaded`.

        Raises:
            InvalidArguments, PayloadTooLarge, SecretError: see `Arguments.prepare`.
        """
        if payloads.FIELD in kwargs and Reference.found_in(kwargs) is not None:
            payload = checked_payload(tuple(args), dict(kwargs))  # sent on; they were checked, and are kept
        else:
            payload = checked_payload(*task.arguments.prepare(args, kwargs, self.keyring))
            if task.rules.limits:
                value_at = partial(task.arguments.value, args=payload.args, kwargs=payload.kwargs)
                refuse_excess(task.name, task.rules.limits, value_at)
        if payload.size > self.settings.payload_max:
            self._refuse_too_large(task, payload)
        return payload

    def prepare(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The args and kwargs of `checked`; of a run that is sent again, with what was kept apart checked."""
        payload = self.checked(task, args, kwargs)
        if payloads.FIELD in kwargs:
            whole = self.with_payload(task, payload.args, payload.kwargs)
            task.arguments.prepare(*whole, self.keyring)
        return payload.args, payload.kwargs

    def by_name(self, name: str, args: Any, kwargs: Any) -> Payload:
        """A call of a task that is known by its name alone, as its message carries it.

        Raises:
            PayloadTooLarge: it is too large. Celery's own tasks (a chord's) may be as large as they are.
        """
        payload = any_payload(args, kwargs)
        if payload.size > self.settings.payload_max and not name.startswith("celery."):
            raise PayloadTooLarge(name, [_too_large(payload.size, self.settings.payload_max)])
        return payload

    def offloaded(self, task: Task[..., Any], payload: Payload, run_id: str) -> Payload:
        """`payload` as small as a message should be; what is too large is kept.

        Raises:
            PayloadTooLarge: what has to stay is too large.
            PayloadUnavailable: the store does not answer; nothing was sent.
        """
        if self._stays_here():
            return payload
        small, kept = self._split(task, payload, run_id)
        try:
            _aside(lambda: self._keep(kept))
        except Exception as exc:
            raise PayloadUnavailable(
                f"{task.name}[{run_id}] was not sent: its arguments ({kept['bytes']:,} bytes) could not be "
                f"kept apart ({exc}). Try again later; within a transaction, use delay_on_commit"
            ) from exc
        return small

    def offload_with(self, session: Any, task: Any, args: Any, kwargs: Any, run_id: str) -> Call:
        """`offloaded` for a call that `session` writes into the outbox: it writes the payload as well."""
        if not isinstance(task, Task) or not task.rules.offload or self._stays_here():
            return args, kwargs
        payload = checked_payload(tuple(args), dict(kwargs))
        if payload.size <= self.settings.payload_max:
            return args, kwargs
        from errands.store import outbox
        from errands.store import payloads as kept_payloads

        small, kept = self._split(task, payload, run_id)
        kept_payloads.add_with(outbox.session_of(session), **kept)
        return small.args, small.kwargs

    def adopt_payload(self, task: Any, run_id: str, by: str) -> None:
        """A waiting run has taken the arguments of a later request, `run_id`: what was kept apart of them is
        its own from now on, and lives as long as it does."""
        rules = task.rules if isinstance(task, Task) else None
        if rules is None or not rules.offload or rules.unique is None or not rules.unique.replaces:
            return
        if self._stays_here():
            return
        try:
            _aside(lambda: self._adopt(run_id, by))
        except Exception:  # it was accepted; and its payload is not looked at for a day
            logger.warning("%s[%s] could not take over its payload", task.name, by, exc_info=True)

    def _adopt(self, run_id: str, by: str) -> None:
        from errands.store import payloads as kept_payloads

        with self.database.writing() as connection:
            kept_payloads.adopt(connection, run_id, by)

    def _stays_here(self) -> bool:
        """Whether nothing leaves this process: in inline mode, and where tests catch what is sent."""
        return self.settings.inline or self.is_capturing

    def _split(self, task: Task[..., Any], payload: Payload, run_id: str) -> tuple[Payload, dict[str, Any]]:
        key = self.new_id()
        found = payloads.split(
            task.name, key, payload.args, payload.kwargs, self.settings.payload_max, _json,
            _counted(task, payload),
        )  # fmt: skip
        small = checked_payload(found.args, found.kwargs)
        if small.size > self.settings.payload_max:
            raise PayloadTooLarge(
                task.name,
                [
                    f"{small.size:,} bytes of arguments have to stay in the message, over the limit of "
                    f"{self.settings.payload_max:,}: what a limit counts, and many small ones. "
                    "Put them into one argument"
                ],
            )
        kept = {
            "key": key, "run_id": run_id, "task": task.name, "content": found.content,
            "bytes": len(found.content),
        }  # fmt: skip
        return small, kept

    def _refuse_too_large(self, task: Task[..., Any], payload: Payload) -> None:
        settings = self.settings
        limit = settings.offload_max if task.rules.offload else settings.payload_max
        if payload.size <= limit:
            return
        more = "" if task.rules.offload else ", or declare the task with offload=True"
        raise PayloadTooLarge(task.name, [_too_large(payload.size, limit) + more])

    # -- receiving

    def with_payload(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """A call as its message carries it, with what was kept apart in its place.

        Raises:
            PayloadLost: it is gone, or not what was kept.
            Snooze: the store does not answer; the run is to wait, and its attempt does not count.
        """
        reference = Reference.found_in(kwargs)
        if reference is None:
            return args, kwargs
        try:
            content = _aside(lambda: self._content(reference.key))
        except Exception as exc:
            raise Snooze(_LOOK_AGAIN, f"its arguments cannot be read: {type(exc).__name__}: {exc}") from exc
        return payloads.join(task.name, task.rules.aliases, args, kwargs, reference, content)

    def discard_payloads(self, keys: Iterable[str]) -> None:
        """Remove the content of payloads that nobody refers to any more from the app's own store."""
        store = self._payload_store
        for key in keys if store is not None else ():
            assert store is not None  # noqa: S101 - as asked
            process_loop().run(store.delete(key))

    def _keep(self, kept: dict[str, Any]) -> None:
        from errands.store import payloads as kept_payloads

        store = self._payload_store
        # First, so that whatever is in the store is found again, and removed some day.
        with self.database.writing() as connection:
            kept_payloads.add(connection, **{**kept, "content": None} if store else kept)
        if store is not None:
            process_loop().run(store.put(kept["key"], kept["content"]))

    def _content(self, key: str) -> bytes | None:
        from errands.store import payloads as kept_payloads

        with self.database.reading() as connection:
            row = kept_payloads.content(connection, key)
        if row is None or row[0] is not None:
            return row and row[0]
        if self._payload_store is None:
            raise ErrandsError("they are in a store of the app's; call app.offload_to(…) in this process too")
        return process_loop().run(self._payload_store.get(key))


def _counted(task: Task[..., Any], payload: Payload) -> set[int | str]:
    """Where the arguments are whose items a limit counts: they stay where it finds them."""
    names: set[str] = {limit.counts for limit in task.rules.limits if limit.counts}
    if not names:
        return set()
    named = task.arguments.named(payload.args, payload.kwargs)
    values = [named[name] for name in names & named.keys()]
    positions = {n for n, value in enumerate(payload.args) if any(value is one for one in values)}
    return {*positions, *(name for name in names if name in payload.kwargs)}


def _too_large(size: int, limit: int) -> str:
    return (
        f"the arguments weigh {size:,} bytes, over the limit of {limit:,}: "
        "store the data and send a reference to it (an id, or a key of the storage kit)"
    )


def _json(value: Any) -> bytes:
    return checked_payload((value,), {}).args_json[1:-1]


def _aside(function: Callable[[], T]) -> T:
    """Call a function that blocks; where many tasks share a loop, the others go on."""
    return wait(asyncio.to_thread(function)) if in_green() else function()
