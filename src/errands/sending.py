"""How a run is sent: checked, sealed, given to the broker, told to the stream of events."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

import celery
import celery.exceptions
import kombu.exceptions
import redis
import uuid_utils
from celery.result import AsyncResult
from celery.utils.time import maybe_make_aware

from errands.broker.checks import place
from errands.broker.errors import BrokerDown
from errands.core import clock
from errands.core.errors import PayloadTooLarge
from errands.core.events import Event, Kind
from errands.core.secrets import Keyring
from errands.settings import Settings
from errands.store import outbox
from errands.store.engine import Database
from errands.task import Task
from errands.worker import execution
from errands.worker.host import RunLog

logger = logging.getLogger("errands")

_owner: ContextVar[str | None] = ContextVar("errands_owner", default=None)


class Sending(celery.Celery):
    """The half of `Errands` through which all runs are sent."""

    settings: Settings
    keyring: Keyring
    _capture: list[dict[str, Any]] | None = None

    if TYPE_CHECKING:

        @property
        def live(self) -> RunLog: ...

        @property
        def database(self) -> Database: ...

    @contextmanager
    def acting_as(self, owner: str | None) -> Iterator[None]:
        """Runs sent inside the block belong to `owner`."""
        token = _owner.set(owner)
        try:
            yield
        finally:
            _owner.reset(token)

    def act_as(self, owner: str | None) -> None:
        """Runs sent from now on in this context (a web request, say) belong to `owner`."""
        _owner.set(owner)

    @staticmethod
    def new_id() -> str:
        """A new run id: UUIDv7 (RFC 9562), so that ids sort by time."""
        return str(uuid_utils.uuid7())

    def prepare(self, task: Task[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A call as its message carries it: checked, JSON-ready, secrets sealed, not too large.

        Raises:
            InvalidArguments, PayloadTooLarge, SecretError: see `Arguments.prepare`.
        """
        ready = task.arguments.prepare(args, kwargs, self.keyring)
        size = len(json.dumps(ready, default=str))
        if size > self.settings.payload_max:
            raise PayloadTooLarge(
                task.name,
                [
                    f"the arguments weigh {size:,} bytes, over the limit of {self.settings.payload_max:,}: "
                    "store the data and send a reference to it (an id, or a key of the storage kit)"
                ],
            )
        return ready

    def seal(self, task: Task[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """`kwargs` of `task` with its secrets sealed."""
        return task.arguments.seal(kwargs, self.keyring)

    def envelope(self, given: Any, task_id: str | None, owner: str | None) -> dict[str, Any]:
        """The message's headers, with what we add to them: whose the run is, and how often it was sent on."""
        headers: dict[str, Any] = dict(given or {})
        known = dict(headers.get("errands") or {})
        parent = self.current_worker_task
        mine = execution.envelope_of(parent.request) if parent else {}
        owner = owner or known.get("owner") or _owner.get() or mine.get("owner")
        if owner is not None:
            known["owner"] = str(owner)
        goes_on = parent is not None and task_id is not None and parent.request.id == task_id
        if goes_on and not known.get("copy"):
            # A retry, a snooze, a replacement: the same run goes on, and older messages of it are stale.
            known["hop"] = int(mine.get("hop", 0)) + 1
        known["queued_at"] = round(clock.timestamp(), 3)
        headers["errands"] = known
        return headers

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send a run by the task's name. All sending goes through here.

        A run whose id is known already is not sent again: a stable id makes a follow-up safe to repeat.
        """
        headers = options.pop("headers", None)
        if "errands" not in (headers or {}):
            headers = self.envelope(headers, task_id, None)
        goes_on = "hop" in headers["errands"]
        # A task that is known here says where it waits, also when it is sent by its name.
        options.setdefault("task_type", self.tasks.get(name))
        if self._capture is not None:
            return self._captured(name, args, kwargs, task_id, countdown=countdown, eta=eta, **options)
        try:
            if task_id is not None and not goes_on and self.live.known(task_id):
                logger.info("%s[%s] is known already and is not sent again", name, task_id)
                return self.AsyncResult(task_id)
            task_id = task_id or self.new_id()
            if self.settings.inline:
                return self._run_inline(name, args, kwargs, task_id, headers, options)
            result = super().send_task(
                name, args, kwargs, countdown=countdown, eta=eta, task_id=task_id, headers=headers, **options
            )
        except (kombu.exceptions.OperationalError, redis.RedisError) as exc:
            raise BrokerDown(
                f"{name} was not sent: the broker at {place(self.settings.broker_url)} does not answer "
                f"({exc}). Try again later, or send it with delay_on_commit, whose outbox waits for it"
            ) from exc
        if not goes_on and not name.startswith("celery."):
            due = _due(countdown, eta)
            try:
                self._record_queued(task_id, name, args, kwargs, due, headers, options)
            except redis.RedisError:
                # The message is out; the worker's own record of its start will make up for this one.
                logger.warning("%s[%s] was sent, but could not be recorded as queued", name, task_id)
        return result

    def _run_inline(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        task_id: str,
        headers: dict[str, Any],
        options: dict[str, Any],
    ) -> AsyncResult:
        """Run it here and now, in the caller's process."""
        if name not in self.tasks:
            raise celery.exceptions.NotRegistered(name)
        self._record_queued(task_id, name, args, kwargs, None, headers, options)
        follow_ups = {key: options[key] for key in ("link", "link_error") if options.get(key)}
        return self.tasks[name].apply(args, kwargs, task_id=task_id, headers=headers, **follow_ups)

    def send_on_commit(
        self, session: Any, name: str, args: Any, kwargs: Any, *, task_id: str | None, owner: str | None,
        **options: Any,
    ) -> str:  # fmt: skip
        """Write the run into the outbox, in the session's transaction; send it after the commit."""
        run_id = task_id or self.new_id()
        owner = self.envelope(None, None, owner)["errands"].get("owner")
        outbox.add(
            session, self.publish_committed, run_id=run_id, task=name, args=list(args), kwargs=dict(kwargs),
            options=options, owner=owner,
        )  # fmt: skip
        return run_id

    def publish_committed(self, run_ids: Sequence[str]) -> None:
        """Send what a commit left in the outbox. What cannot be sent now stays for the relay."""
        for row in outbox.rows(self.database, run_ids):
            try:
                self.publish_outbox(row)
            except (kombu.exceptions.OperationalError, redis.RedisError) as exc:
                logger.warning(
                    "%s[%s] stays in the outbox, the relay will send it: %s", row.task, row.id, exc
                )
                return
            outbox.remove(self.database, [row.id])

    def publish_outbox(self, row: Any) -> None:
        """Send one row of the outbox. Sent twice, it is one run."""
        headers = {"errands": {"owner": row.owner, "queued_at": round(clock.timestamp(), 3)}}
        if row.owner is None:
            del headers["errands"]["owner"]
        task = self.tasks.get(row.task)
        options = dict(row.options or {})
        if task is not None:
            task.apply_async(row.args, row.kwargs, task_id=row.id, headers=headers, **options)
        else:
            self.send_task(row.task, row.args, row.kwargs, task_id=row.id, headers=headers, **options)

    def _record_queued(
        self, run_id: str, name: str, args: Any, kwargs: Any, due: float | None, headers: Any, options: Any
    ) -> None:
        task = self.tasks.get(name)
        parent = self.current_worker_task
        queue = options.get("queue") or (task.rules.queue if isinstance(task, Task) else None)
        self.live.record(
            Event(
                kind=Kind.QUEUED,
                run_id=run_id,
                at=clock.timestamp(),
                task=name,
                queue=getattr(queue, "name", queue) or self.conf.task_default_queue,
                owner=headers["errands"].get("owner"),
                parent_id=options.get("parent_id") or (parent.request.id if parent else None),
                root_id=options.get("root_id") or (parent.request.root_id if parent else None) or run_id,
                args=list(args or ()),
                kwargs=dict(kwargs or {}),
                eta=due,
                max_attempts=task.rules.policy.times + 1 if isinstance(task, Task) else None,
            )
        )

    # -- capturing, for tests

    @property
    def is_capturing(self) -> bool:
        """Whether sending is held back just now."""
        return self._capture is not None

    @contextmanager
    def capturing(self) -> Iterator[list[dict[str, Any]]]:
        """Nothing is sent inside the block; the list holds what would have been."""
        before, self._capture = self._capture, []
        try:
            yield self._capture
        finally:
            self._capture = before

    def _captured(
        self, name: str, args: Any, kwargs: Any, task_id: str | None, **options: Any
    ) -> AsyncResult:
        assert self._capture is not None  # noqa: S101 — the caller looked
        task_id = task_id or self.new_id()
        if all(item["id"] != task_id for item in self._capture):
            self._capture.append(
                {
                    "id": task_id,
                    "task": name,
                    "args": tuple(args or ()),
                    "kwargs": dict(kwargs or {}),
                    **options,
                }
            )
        return self.AsyncResult(task_id)


def _due(countdown: float | None, eta: datetime | str | None) -> float | None:
    if countdown is not None:
        return clock.timestamp() + countdown
    if eta is None:
        return None
    moment = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
    return float(maybe_make_aware(moment).timestamp())
