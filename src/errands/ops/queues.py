"""Queues as people see them, whichever broker keeps them: on Valkey's streams with all there is to know, in
kombu's lists their depth and age, elsewhere their depth."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import Any

from errands.broker import forgetting, pause, queues
from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.list_depths import list_depths
from errands.broker.queues import QueueDepth
from errands.core.errors import ActionRefused
from errands.ops.host import App
from errands.ops.probes import CONNECT_SECONDS, broker_errors
from errands.settings import STOCK_LISTS

_ON_STREAMS = ("redis://", "rediss://", "redis+socket://", "unix://", "sentinel://")


class Kind(StrEnum):
    """Who keeps the queues."""

    STREAMS = "streams"
    LISTS = "lists"
    OTHER = "other"


def kind_of(app: App) -> Kind:
    """What kind of queues the app's broker has."""
    url = app.settings.broker_url
    if url.startswith(STOCK_LISTS):
        return Kind.LISTS
    return Kind.STREAMS if url.startswith(_ON_STREAMS) else Kind.OTHER


def depths(app: App) -> dict[str, QueueDepth]:
    """How it stands with each of the app's queues; nothing in inline mode.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    if app.settings.inline:
        return {}
    names, kind = app.queue_names, kind_of(app)
    with broker_errors():
        if kind is Kind.STREAMS:
            with _streams(app) as (client, keys):
                return queues.depths(client, keys, names)
        with app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
            if kind is Kind.LISTS:
                return list_depths(connection.default_channel.client, names)
            return {name: QueueDepth(_counted(connection, name), None) for name in names}


def paused(app: App) -> set[str]:
    """Which queues no worker reads for now.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    if app.settings.inline or kind_of(app) is not Kind.STREAMS:
        return set()
    with broker_errors(), _streams(app) as (client, keys):
        return pause.paused(client, keys)


def set_paused(app: App, queue: str, now_paused: bool) -> None:
    """Let no worker read a queue, or let them again.

    Raises:
        ActionRefused: this broker's queues cannot be paused.
        BrokerUnavailable: it does not answer.
    """
    if app.settings.inline or kind_of(app) is not Kind.STREAMS:
        raise ActionRefused(
            "only queues on Valkey's streams can be paused; with this broker, tell its workers: "
            f"`celery control cancel_consumer {queue}`, `celery control add_consumer {queue}`"
        )
    with broker_errors(), _streams(app) as (client, keys):
        (pause.pause if now_paused else pause.resume)(client, keys, queue)


def remove_delayed(app: App, queue: str, run_id: str) -> int:
    """Take a run's message that is not due yet out of its queue. Returns how many there were.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    if app.settings.inline or kind_of(app) is not Kind.STREAMS:
        return 0
    with broker_errors(), _streams(app) as (client, keys):
        return queues.remove_delayed(client, keys, queue, run_id)


def remove_dead(app: App, queue: str, run_ids: Collection[str]) -> int:
    """Delete what a queue keeps of messages of these runs that nobody could be given. Returns how many.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    if app.settings.inline or kind_of(app) is not Kind.STREAMS:
        return 0
    with broker_errors(), _streams(app) as (client, keys):
        return forgetting.remove_dead(client, keys, queue, run_ids)


def as_dicts(app: App) -> dict[str, dict[str, Any]]:
    """For JSON: by name depth, oldest_s, delayed, held, dead, paused. Raises as `depths` does."""
    stopped = paused(app)
    return {name: {**asdict(found), "paused": name in stopped} for name, found in sorted(depths(app).items())}


@contextmanager
def _streams(app: App) -> Iterator[tuple[Client, Keys]]:
    """A client of the server that has the streams, and their names there."""
    if app.settings.broker_url.replace("redis+socket://", "unix://", 1) == app.settings.valkey_url:
        yield app.valkey, app.keys
        return
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
        channel = connection.default_channel
        yield channel.plain, channel.keys


def _counted(connection: Any, name: str) -> int:
    """Messages in one queue. One that does not exist yet closes the channel that asked, and holds none."""
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(name, passive=True).message_count)
        except connection.channel_errors:
            return 0
