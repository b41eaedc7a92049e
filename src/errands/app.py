"""`Errands`: a Celery app with every part of this library in its place. It alone knows them all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

import celery
import celery.exceptions
import redis

from errands import logs, starting
from errands.broker import leases
from errands.broker.batch_counts import BatchCounts
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.limits import Limits
from errands.broker.runs import LiveRuns
from errands.broker.streams.dead_letters import recorder
from errands.core import limits as core_limits
from errands.core.batches import BatchStatus
from errands.core.declaring import check_options, check_rules, take_rules
from errands.core.effects import EffectStore
from errands.core.errors import ConfigurationError
from errands.core.limits import Concurrency, Limit, declared
from errands.core.retry import Retry
from errands.core.secrets import Keyring
from errands.core.task import Queue
from errands.core.unique import Unique
from errands.defaults import celery_configuration
from errands.sending import Sending
from errands.settings import Settings
from errands.store.sessions import ASYNC_SESSION, SESSION
from errands.task import Task, session_parameter
from errands.worker import signals
from errands.worker.effects import InlineEffects
from errands.worker.heartbeat import Heartbeat
from errands.worker.host import RunLog
from errands.worker.inline import InlineRuns
from errands.worker.resources import Resources, Scope
from errands.worker.stopping import Stopping

if TYPE_CHECKING:
    from errands.deliveries import Deliveries
    from errands.store.engine import Database

logger = logging.getLogger("errands")

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Callable[[str, list[str]], int | None])


class Kit(Protocol):
    """Ready-made work, to be added by `app.use`."""

    def install(self, app: Errands) -> None: ...


class Errands(Sending):
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
        self.signer = self.settings.signer()
        self.erasers: list[Callable[[str, list[str]], int | None]] = []
        self.added_limits: dict[str, Limit] = {}
        self.keys = Keys(self.settings.key_prefix)
        self.clients = Clients(self.settings.valkey_url)
        self.resources = Resources()
        self._inline_runs = InlineRuns()
        self.inline_effects = InlineEffects()
        self._live_runs = LiveRuns(
            self.clients,
            self.keys,
            result_expires=self.settings.result_expires,
            events_max=self.settings.events_max,
            max_deliveries=self.settings.max_deliveries,
        )
        self._batch_counts = BatchCounts(self.clients, self.keys, self._live_runs)
        self._inline_runs.batches.send = self.send_follow_ups
        self.resources.provide(BatchStatus, self.batch_before)
        self.resources.provide("errands.deliveries.facade.Deliveries", self._deliveries, scope="process")
        self.resources.provide(SESSION, lambda: self.database.session())
        self.resources.provide(ASYNC_SESSION, lambda: self.database.async_session())
        super().__init__(main, **options)
        configuration = celery_configuration(self.settings)
        configuration["broker_transport_options"]["on_dead_letter"] = recorder(lambda: self.live, self.signer)
        self.config_from_object(configuration)
        self.steps["worker"].update([Heartbeat, Stopping])
        signals.connect(self)
        celery.signals.setup_logging.connect(self.configure_logging, weak=False)
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
        priority: int | str | None = None,
        retry: Retry | None = None,
        aliases: Sequence[str] = (),
        unique: Unique | None = None,
        limit: Limit | Sequence[Limit] = (),
        at_most: Concurrency | None = None,
        fair_by: str | None = None,
        deadline: float | None = None,
        offload: bool = False,
        **options: Any,
    ) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Any = None, **options: Any) -> Any:
        """Make a task of a function, as Celery's decorator does.

        Args:
            name: how messages name it; stable, so that modules can be moved. By default module and function.
            queue: where its messages wait. The task says so itself, whatever it is called.
            priority: "high", "normal" or "low", or Celery's 0 to 9; 9 goes first: see `docs/priority.md`.
            retry: when it is tried again; without it a failed run is over (Celery's `autoretry_for` works).
            aliases: older names that messages may still carry.
            unique: what a second request for the same work gets: see `docs/unique.md`.
            limit: how often it may start, over all workers: see `docs/limits.md`.
            at_most: how many at once, over all workers: see `docs/limits.md`.
            fair_by: the argument that tells whose run it is: see `docs/fairness.md`.
            deadline: seconds after its acceptance at which a run is over: see `docs/time-limits.md`.
            offload: large arguments go to the store of payloads: see `docs/payloads.md`.
            options: Celery's own: `bind`, `base`, `time_limit`, `soft_time_limit`, `ignore_result`, …

        Raises:
            ConfigurationError: a rule contradicts itself. What depends on other declarations (queues,
                resources) is checked when the app starts.
        """

        def declare(function: Callable[..., Any]) -> Any:
            left = dict(options)  # one decorator may make several tasks
            called = left.get("name") or self.gen_task_name(function.__name__, function.__module__)
            rules = take_rules(called, left)
            check_options(called, left, self.settings.time_limit)
            check_rules(called, rules, function, skip_first=bool(left.get("bind")))
            left.pop("pydantic", None)  # arguments are always checked
            # An app's tasks are its own, also where two apps share a process.
            left.setdefault("shared", False)
            return super(Errands, self).task(rules=rules, **left)(function)

        return declare if function is None else declare(function)

    def task_with_db(self, function: Any = None, **options: Any) -> Any:
        """`task` for a function whose first parameter is a database session.

        The worker gives it the session, committed with the run or rolled back with its failure. In a test,
        `run_with_db(session, …)` calls the function with a session of the test's own.

        Raises:
            ConfigurationError: the first parameter is not annotated as `Session` or `AsyncSession`.
        """

        def declare(function: Callable[..., Any]) -> Any:
            kind = session_parameter(function, skip_first=bool(options.get("bind")))
            if kind is None:
                raise ConfigurationError(
                    f"task_with_db: {function.__qualname__} must take the session first, annotated as "
                    "sqlalchemy's AsyncSession (`async def`) or Session"
                )
            return self.task(**options)(function)

        return declare if function is None else declare(function)

    def provide(self, kind: type[Any], factory: Callable[..., Any], *, scope: Scope = "run") -> None:
        """Register a resource: see `Resources.provide`."""
        self.resources.provide(kind, factory, scope=scope)

    def use(self, kit: Kit) -> Kit:
        """Add a kit: its tasks, its resources."""
        kit.install(self)
        return kit

    def on_erase(self, function: E) -> E:
        """Have `function` called when a person is erased: for what the application keeps of them itself.

        Args:
            function: gets the person's id and the ids of their runs, erases, and returns how much that was
                (or None). It may be called again with the same. If it raises, the erasure has failed.
        """
        self.erasers.append(function)
        return function

    def add_limit(self, limit: Limit) -> None:
        """Declare a limit that runs take from while they are at work, by `run.allow`: see `docs/limits.md`.

        Args:
            limit: `Limit("100/m", name="messages")`. Tasks may share it, as any limit with a name.

        Raises:
            ConfigurationError: it has no name, goes by arguments, or another one of this name differs.
        """
        self.added_limits = core_limits.added(self.added_limits, limit)

    # -- parts

    @property
    def live(self) -> RunLog:
        """Where events go and live states come from."""
        return self._inline_runs if self.settings.inline else self._live_runs

    @cached_property
    def _sql_effects(self) -> EffectStore:
        from errands.store.effects import SqlEffects  # as with `database`

        return SqlEffects(lambda: self.database)

    @property
    def effects(self) -> EffectStore:
        """Where outside effects are kept."""
        return self.inline_effects if self.settings.inline else self._sql_effects

    def _deliveries(self) -> Deliveries:
        from errands.deliveries.facade import Deliveries  # with SQLAlchemy, as with `database`

        return Deliveries.of(self)

    @property
    def limits(self) -> Limits:
        """The limits of all tasks: to see them, and to change them while workers run."""
        self.finalize()
        rules = {
            task.name: task.rules.of_rates_and_slots for task in self.tasks.values() if isinstance(task, Task)
        }
        inline = self._inline_runs.limits.changed if self.settings.inline else None
        return Limits(self.clients, self.keys, declared(rules, self.added_limits), inline)

    @property
    def valkey(self) -> redis.Redis:
        """This process's client of Valkey."""
        return self.clients.sync

    @cached_property
    def database(self) -> Database:
        """The database that holds the ledger and the outbox."""
        from errands.store.engine import Database  # with SQLAlchemy: for processes that use a database

        options: dict[str, Any] = {}
        if leases.holder() and ":memory:" not in self.settings.database_url:
            # A hundred tasks may share the connections of a worker: they wait for one while they may last.
            options["pool_timeout"] = self.settings.soft_time_limit
        return Database(self.settings.database_url, **options)

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

    # -- starting

    def check(self) -> None:
        """Refuse to start with a configuration that would lose or leak work.

        Raises:
            ConfigurationError: it says what is wrong, and what to do.
        """
        self.finalize()
        starting.check(self)

    def finalize(self, auto: bool = False) -> None:
        """Celery calls this when all tasks are known.

        Raises:
            ConfigurationError: a task waits in a queue that the app does not declare.
        """
        known_before = self.finalized
        super().finalize(auto=auto)
        if not known_before:
            starting.declare(self)

    def configure_logging(self, **_: Any) -> None:
        """Let this process log in our form: with time, level, process, task name and task id on each line.

        Workers and beats do it by themselves; a web process calls it when it starts, if it wishes. Errors go
        to Sentry from then on, where a DSN is set.
        """
        logs.configure(self.settings)
        if self.settings.sentry_dsn is not None:
            starting.report_to_sentry(self.settings.sentry_dsn.get_secret_value())

    def _check_at_start(self, sender: Any = None, **_: Any) -> None:
        if getattr(sender, "app", self) is not self:
            return
        try:
            self.check()
        except ConfigurationError as exc:
            logger.critical("%s", exc)
            raise SystemExit(f"errands: {exc}") from exc
