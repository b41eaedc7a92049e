"""What does not go straight to our broker: Celery sends it, or it stays in this process.

Celery sends where another broker, an exchange, a serializer or a compression is asked for, or where somebody
has put something around Celery's own sending. In inline mode runs are run at once; tests may catch them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
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

from errands.broker.message import Payload, text_of
from errands.core import clock
from errands.core.events import Event, Kind
from errands.core.secrets import Keyring
from errands.sending import refusals
from errands.settings import Settings
from errands.task import Task
from errands.worker import execution
from errands.worker.host import RunLog

logger = logging.getLogger("errands")

_owner: ContextVar[str | None] = ContextVar("errands_owner", default=None)


class CelerysWay(celery.Celery):
    """Celery, with ids that sort by time, owners, and events that tell of what was sent."""

    settings: Settings
    keyring: Keyring
    _capture: list[dict[str, Any]] | None = None

    if TYPE_CHECKING:

        @property
        def live(self) -> RunLog: ...

    # -- what every run carries

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

    def marks(
        self, given: Any, task_id: str | None, owner: str | None, parent: Any, now: float
    ) -> dict[str, Any]:
        """The header `errands`: whose the run is, when it was sent, and how often it was sent on.

        Args:
            given: the same header, where it is there already.
            parent: the task that sends, if one does.
        """
        known = dict(given or {})
        mine = execution.envelope_of(parent.request) if parent is not None else {}
        owner = owner or known.get("owner") or _owner.get() or mine.get("owner")
        if owner is not None:
            known["owner"] = str(owner)
        goes_on = parent is not None and task_id is not None and parent.request.id == task_id
        if goes_on and not known.get("copy"):
            # A retry, a snooze, a replacement: the same run goes on, and older messages of it are stale.
            known["hop"] = int(mine.get("hop", 0)) + 1
        known["queued_at"] = round(now, 3)
        return known

    def envelope(self, given: Any, task_id: str | None, owner: str | None) -> dict[str, Any]:
        """The message's headers, `marks` among them."""
        headers: dict[str, Any] = dict(given or {})
        parent = self.current_worker_task
        headers["errands"] = self.marks(headers.get("errands"), task_id, owner, parent, clock.timestamp())
        return headers

    # -- Celery sends it

    def apply_by_celery(
        self, task: Task[..., Any], payload: Payload, task_id: str | None, owner: str | None, options: Any
    ) -> AsyncResult:
        """Have a checked call of `task` sent by Celery, or run, or caught."""
        args, kwargs = payload.args, payload.kwargs
        if task.arguments.secrets:
            options.setdefault("argsrepr", text_of(args, payload.args_json))
            options.setdefault("kwargsrepr", text_of(kwargs, payload.kwargs_json))
        options["headers"] = self.envelope(options.get("headers"), task_id, owner)
        if self.settings.inline or self.is_capturing:
            return self.send_task(task.name, args, kwargs, task_id=task_id, task_type=task, **options)
        return celery.Task.apply_async(task, args, kwargs, task_id=task_id, **options)

    def send_by_celery(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        *,
        task_id: str | None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Have Celery send a run, and tell of it."""
        headers = options.pop("headers", None)
        if "errands" not in (headers or {}):
            headers = self.envelope(headers, task_id, None)
        goes_on = "hop" in headers["errands"]
        if self._capture is not None:
            return self._captured(name, args, kwargs, task_id, countdown=countdown, eta=eta, **options)
        try:
            if task_id is not None and not goes_on and self.live.known(task_id):
                logger.info("%s[%s] is known already and is not sent again", name, task_id)
                return self.AsyncResult(task_id)
            task_id = task_id or self.new_id()
            if self.settings.inline:
                return self._run_inline(name, args, kwargs, task_id, headers, options)
            result = celery.Celery.send_task(
                self, name, args, kwargs, countdown=countdown, eta=eta, task_id=task_id, headers=headers,
                **options,
            )  # fmt: skip
        except (kombu.exceptions.OperationalError, redis.RedisError) as exc:
            raise refusals.of_celery(exc, name, self.settings.broker_url) from exc
        if not goes_on and not name.startswith("celery."):
            due = _due(countdown, eta)
            try:
                self._record_queued(task_id, name, args, kwargs, due, headers, options)
            except redis.RedisError:
                # The message is out; the worker's own record of its start will make up for this one.
                logger.warning("%s[%s] was sent, but could not be recorded as queued", name, task_id)
        return result

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

    # -- it stays here

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
