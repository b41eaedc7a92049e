"""What must hold before an app takes its first message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kombu.entity import Queue as BrokerQueue

from errands.broker.checks import check_eviction
from errands.broker.streams.consuming import Consuming
from errands.core.errors import ConfigurationError, InvalidArguments, SecretError
from errands.core.limits import declared
from errands.core.schedule import Schedule, check_names
from errands.defaults import route
from errands.store.sessions import is_session
from errands.task import Task

if TYPE_CHECKING:
    from errands.app import Errands


def check(app: Errands) -> None:
    """Raise ConfigurationError for whatever would lose or leak work."""
    sessions = False
    for name, task in sorted(app.tasks.items()):
        if not isinstance(task, Task) or task.function is None:
            continue
        sessions = sessions or any(map(is_session, task.arguments.resources.values()))
        if task.rules.fair_by is not None and not app.settings.inline:
            _check_takes_turns(app, name)
        if task.arguments.secrets and not app.keyring:
            raise ConfigurationError(
                f"task {name!r} has a secret argument, and there is no key to seal it with: set "
                "ERRANDS_SECRET_KEYS (make one with `python -m errands keys new`)"
            )
    if sessions:
        # Now, and not in the first run: that would hold the loop up, or be done in each child anew.
        from errands.store import outbox  # noqa: F401
    for schedule in app.declared_schedules.values():
        _check_schedule(app, schedule)
    if {"pickle", "application/x-python-serialize"} & set(app.conf.accept_content):
        raise ConfigurationError(
            "accept_content allows pickle: whoever reaches the broker could run any code in the workers. "
            "Take it out; send ids and JSON"
        )
    if not app.settings.inline:
        check_eviction(app.valkey, app.settings.valkey_url)


def _check_schedule(app: Errands, schedule: Schedule) -> None:
    check_names(schedule, app.tasks, app.queue_names)
    task = app.tasks[schedule.task]
    if not isinstance(task, Task) or task.function is None:
        return
    try:
        app.prepare(task, schedule.args, schedule.kwargs)
    except (InvalidArguments, SecretError) as exc:
        raise ConfigurationError(f"schedule {schedule.name!r}: its arguments do not fit: {exc}") from exc


def _check_takes_turns(app: Errands, task: str) -> None:
    with app.connection_for_read() as connection:
        channel = getattr(connection.get_transport_cls(), "Channel", None)
    if not (isinstance(channel, type) and issubclass(channel, Consuming)):
        raise ConfigurationError(
            f"task {task!r} has fair_by, and in the queues of {app.settings.broker_url.partition(':')[0]}:// "
            "tenants cannot take turns: use a broker of redis:// (see docs/fairness.md), or take fair_by out"
        )


def declare(app: Errands) -> None:
    """Make known the tasks' older names, and the queues they wait in.

    Raises:
        ConfigurationError: a task waits in a queue that the app does not declare; two tasks share a limit and
            say differently what it is.
    """
    names = {queue.name for queue in app.declared_queues}
    wanted: dict[str, str] = {}
    for task in list(app._tasks.values()):
        if not isinstance(task, Task):
            continue
        for alias in task.rules.aliases:
            app._tasks[alias] = task
        if task.rules.queue is not None:
            wanted[task.rules.queue] = task.name
    declared(
        {task.name: task.rules.of_rates_and_slots for task in app._tasks.values() if isinstance(task, Task)},
        app.added_limits,
    )
    if app.declared_queues:
        for queue, task_name in wanted.items():
            if queue not in names:
                raise ConfigurationError(
                    f"task {task_name!r} waits in the queue {queue!r}, which the app does not "
                    f"declare; it has {', '.join(sorted(names))}"
                )
    if app.conf.task_queues is None:
        every = sorted(names | set(wanted) | {app.conf.task_default_queue})
        app.conf.task_queues = [BrokerQueue(name, routing_key=name) for name in every]  # type: ignore[no-untyped-call]
        app.conf.task_create_missing_queues = False
    app.conf.task_routes = [*(app.conf.task_routes or []), route]


def report_to_sentry(dsn: str) -> None:
    """Send errors of this process to Sentry.

    Raises:
        ConfigurationError: a DSN is set, and sentry-sdk is not installed or does not take it.
    """
    try:
        import sentry_sdk
        from sentry_sdk.integrations.celery import CeleryIntegration
    except ImportError as exc:
        raise ConfigurationError(
            "SENTRY_DSN is set, and sentry-sdk is not installed: pip install 'errands[sentry]'"
        ) from exc
    try:
        # Local variables would carry opened secrets out of the house.
        sentry_sdk.init(dsn=dsn, integrations=[CeleryIntegration()], include_local_variables=False)
    except sentry_sdk.utils.BadDsn as exc:
        raise ConfigurationError(f"SENTRY_DSN is no DSN: {exc}") from exc
