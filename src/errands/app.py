"""`Errands`: a Celery app with every part of this library in its place. It alone knows them all."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cached_property
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import celery
import kombu.exceptions
import redis
import uuid_utils
from celery.result import AsyncResult
from celery.utils.time import maybe_make_aware
from kombu.entity import Queue as BrokerQueue

from errands import logs
from errands.broker.checks import check_eviction
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.runs import LiveRuns
from errands.core import clock
from errands.core.errors import ConfigurationError, PayloadTooLarge
from errands.core.events import Event, Kind
from errands.core.retry import Retry
from errands.core.secrets import Keyring
from errands.core.task import Queue, Rules
from errands.defaults import celery_configuration, route
from errands.settings import Settings
from errands.store import outbox
from errands.store.engine import Database
from errands.task import Task
from errands.worker import execution, signals
from errands.worker.heartbeat import Heartbeat
from errands.worker.host import RunLog
from errands.worker.inline import InlineRuns
from errands.worker.resources import Resources, Scope

logger = logging.getLogger("errands")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_owner: ContextVar[str | None] = ContextVar("errands_owner", default=None)


class Kit(Protocol):
    """Ready-made work, to be added by `app.use`."""

    def install(self, app: Errands) -> None: ...


class Errands(celery.Celery):
    """A Celery app that keeps its promises.

    Args:
        main: the app's name.
        settings: by default read from the environment.
        queues: the queues that exist, `Queue`s or plain names. A task that names another one is refused at
            start. By default, whatever queues the tasks name.
        options: Celery's own (`include`, `namespace`, …).

    Raises:
        ConfigurationError: a setting is wrong; the text names the variable.
    """

    task_cls = "errands.task:Task"

    def __init__(
        self,
        main: str | None = None,
        *,
        settings: Settings | None = None,
        queues: Sequence[Queue | str] = (),
        **options: Any,
    ) -> None:
        self.settings = settings or Settings()
        self.declared_queues = tuple(Queue(queue) if isinstance(queue, str) else queue for queue in queues)
        self.keyring: Keyring = self.settings.keyring()
        self.keys = Keys(self.settings.key_prefix)
        self.clients = Clients(self.settings.valkey_url)
        self.resources = Resources()
        self._capture: list[dict[str, Any]] | None = None
        self._inline_runs = InlineRuns()
        self._live_runs = LiveRuns(
            self.clients,
            self.keys,
            result_expires=self.settings.result_expires,
            events_max=self.settings.events_max,
            max_deliveries=self.settings.max_deliveries,
        )
        super().__init__(main, **options)
        self.config_from_object(celery_configuration(self.settings))
        self.steps["worker"].add(Heartbeat)
        signals.connect(self)
        celery.signals.setup_logging.connect(self._set_up_logging, weak=False)
        celery.signals.worker_init.connect(self._check_at_start, weak=False)
        celery.signals.beat_init.connect(self._check_at_start, weak=False)

    # -- declaring

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        priority: int | None = None,
        retry: Retry | None = None,
        aliases: Sequence[str] = (),
        **options: Any,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Any = None, **options: Any) -> Any:
        """Make a task of a function, as Celery's decorator does.

        Args:
            name: how messages name it; stable, so that modules can be moved. By default module and function.
            queue: where its messages wait. The task says so itself, whatever it is called.
            priority: 0 to 9; 9 goes first.
            retry: when it is tried again; without it a failed run is over (Celery's `autoretry_for` works).
            aliases: older names that messages may still carry.
            options: Celery's own: `bind`, `base`, `time_limit`, `soft_time_limit`, `ignore_result`, …

        Raises:
            ConfigurationError: a rule contradicts itself. What depends on other declarations (queues,
                resources) is checked when the app starts.
        """

        def declare(function: Callable[..., Any]) -> Any:
            rules = Rules(
                queue=options.pop("queue", None),
                priority=options.pop("priority", None),
                retry=options.pop("retry", None),
                aliases=tuple(options.pop("aliases", ())),
            )
            options.pop("pydantic", None)  # arguments are always checked
            # An app's tasks are its own, also where two apps share a process.
            options.setdefault("shared", False)
            return super(Errands, self).task(rules=rules, **options)(function)

        return declare if function is None else declare(function)

    def provide(self, kind: type[Any], factory: Callable[..., Any], *, scope: Scope = "run") -> None:
        """Register a resource: see `Resources.provide`."""
        self.resources.provide(kind, factory, scope=scope)

    def use(self, kit: Kit) -> Kit:
        """Add a kit: its tasks, its resources."""
        kit.install(self)
        return kit

    # -- parts

    @property
    def live(self) -> RunLog:
        """Where events go and live states come from."""
        return self._inline_runs if self.settings.inline else self._live_runs

    @property
    def valkey(self) -> redis.Redis:
        """This process's client of Valkey."""
        return self.clients.sync

    @cached_property
    def database(self) -> Database:
        """The database that holds the ledger and the outbox."""
        return Database(self.settings.database_url)

    @property
    def queue_names(self) -> list[str]:
        """The names of all queues, declared or named by a task."""
        self.finalize()
        return sorted(self.amqp.queues)

    def queues_by_kind(self) -> dict[str, list[str]]:
        """Queue names for workers that wait ("io") and workers that compute ("cpu")."""
        cpu = {queue.name for queue in self.declared_queues if queue.cpu}
        names = self.queue_names
        return {"io": [n for n in names if n not in cpu], "cpu": [n for n in names if n in cpu]}

    # -- sending

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
        if parent is not None and task_id is not None and parent.request.id == task_id:
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
        if self._capture is not None:
            return self._captured(name, args, kwargs, task_id, countdown=countdown, eta=eta, **options)
        if task_id is not None and not goes_on and self.live.known(task_id):
            logger.info("%s[%s] is known already and is not sent again", name, task_id)
            return self.AsyncResult(task_id)
        task_id = task_id or self.new_id()
        if self.settings.inline:
            self._record_queued(task_id, name, args, kwargs, None, headers, options)
            follow_ups = {key: options[key] for key in ("link", "link_error") if options.get(key)}
            return self.tasks[name].apply(args, kwargs, task_id=task_id, headers=headers, **follow_ups)
        result = super().send_task(
            name, args, kwargs, countdown=countdown, eta=eta, task_id=task_id, headers=headers, **options
        )
        if not goes_on and not name.startswith("celery."):
            due = _due(countdown, eta)
            try:
                self._record_queued(task_id, name, args, kwargs, due, headers, options)
            except redis.RedisError:
                # The message is out; the worker's own record of its start will make up for this one.
                logger.warning("%s[%s] was sent, but could not be recorded as queued", name, task_id)
        return result

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

    # -- starting

    def check(self) -> None:
        """Refuse to start with a configuration that would lose or leak work.

        Raises:
            ConfigurationError: it says what is wrong, and what to do.
        """
        self.finalize()
        for name, task in sorted(self.tasks.items()):
            if not isinstance(task, Task) or task.function is None:
                continue
            if task.arguments.secrets and not self.keyring:
                raise ConfigurationError(
                    f"task {name!r} has a secret argument, and there is no key to seal it with: set "
                    "ERRANDS_SECRET_KEYS (make one with `python -m errands keys new`)"
                )
        for entry_name, entry in (self.conf.beat_schedule or {}).items():
            if entry["task"] not in self.tasks:
                raise ConfigurationError(
                    f"schedule {entry_name!r} names the task {entry['task']!r}, which is not registered: "
                    "import the module that declares it, or correct the name"
                )
        if {"pickle", "application/x-python-serialize"} & set(self.conf.accept_content):
            raise ConfigurationError(
                "accept_content allows pickle: whoever reaches the broker could run any code in the workers. "
                "Take it out; send ids and JSON"
            )
        if not self.settings.inline:
            check_eviction(self.valkey, self.settings.valkey_url)

    def finalize(self, auto: bool = False) -> None:
        """Celery calls this when all tasks are known.

        Raises:
            ConfigurationError: a task waits in a queue that the app does not declare.
        """
        known_before = self.finalized
        super().finalize(auto=auto)
        if not known_before:
            self._declare()

    def _declare(self) -> None:
        """The tasks' older names, and the queues they wait in."""
        names = {queue.name for queue in self.declared_queues}
        wanted: dict[str, str] = {}
        for task in list(self._tasks.values()):
            if not isinstance(task, Task):
                continue
            for alias in task.rules.aliases:
                self._tasks[alias] = task
            if task.rules.queue is not None:
                wanted[task.rules.queue] = task.name
        if self.declared_queues:
            for queue, task_name in wanted.items():
                if queue not in names:
                    raise ConfigurationError(
                        f"task {task_name!r} waits in the queue {queue!r}, which the app does not "
                        f"declare; it has {', '.join(sorted(names))}"
                    )
        if self.conf.task_queues is None:
            every = sorted(names | set(wanted) | {self.conf.task_default_queue})
            self.conf.task_queues = [BrokerQueue(name, routing_key=name) for name in every]  # type: ignore[no-untyped-call]
            self.conf.task_create_missing_queues = False
        self.conf.task_routes = [*(self.conf.task_routes or []), route]

    def _set_up_logging(self, **_: Any) -> None:
        logs.configure(self.settings)

    def _check_at_start(self, sender: Any = None, **_: Any) -> None:
        if getattr(sender, "app", self) is not self:
            return
        try:
            self.check()
        except ConfigurationError as exc:
            logger.critical("%s", exc)
            raise SystemExit(f"errands: {exc}") from exc


def _due(countdown: float | None, eta: datetime | str | None) -> float | None:
    if countdown is not None:
        return clock.timestamp() + countdown
    if eta is None:
        return None
    moment = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
    return float(maybe_make_aware(moment).timestamp())
