"""Metrics for Prometheus, read when they are asked for: nothing is counted in memory, so nothing is lost when
a process restarts, and any process may answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from errands.core import clock
from errands.core.errors import BrokerUnavailable
from errands.core.states import State
from errands.ops import probes, queues
from errands.ops.errors import RecordUnavailable
from errands.ops.host import App
from errands.store import reads, summaries

_FAILED = (State.FAILED, State.DISCARDED)


class AppCollector(Collector):
    """All metrics of one app. What does not answer is missing from a scrape, and `errands_broker_up` or
    `errands_database_up` says so.

    >>> from prometheus_client import REGISTRY
    >>> REGISTRY.register(AppCollector(app))  # doctest: +SKIP
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def describe(self) -> list[Metric]:
        """Nothing: a registry must not need the servers to be there."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        broker = GaugeMetricFamily("errands_broker_up", "1 when the broker answers")
        database = GaugeMetricFamily("errands_database_up", "1 when the ledger can be read")
        try:
            metrics = [*self._workers(), *self._queues()]
            broker.add_metric([], 1)
            yield from metrics
        except BrokerUnavailable:
            broker.add_metric([], 0)
        yield broker
        try:
            metrics = [*self._runs()]
            database.add_metric([], 1)
            yield from metrics
        except RecordUnavailable:
            database.add_metric([], 0)
        yield database

    def _workers(self) -> Iterator[Metric]:
        live = probes.live_workers(self._app)
        yield GaugeMetricFamily("celery_workers", "Live workers", value=len(live))
        memory = GaugeMetricFamily(
            "errands_worker_memory_bytes", "Resident memory, child processes included", labels=["worker"]
        )
        cpu = CounterMetricFamily(
            "errands_worker_cpu_seconds", "Processor time, child processes included", labels=["worker"]
        )
        active = GaugeMetricFamily("errands_worker_active_tasks", "Runs being worked on", labels=["worker"])
        for name, facts in sorted(live.items()):
            memory.add_metric([name], float(facts.get("rss", 0)))
            cpu.add_metric([name], float(facts.get("cpu_seconds", 0)))
            active.add_metric([name], float(facts.get("active", 0)))
        yield from (memory, cpu, active)

    def _queues(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("errands_queue_depth", "Messages waiting", labels=["queue"])
        oldest = GaugeMetricFamily(
            "errands_queue_oldest_seconds", "How long the oldest message has waited", labels=["queue"]
        )
        delayed = GaugeMetricFamily("errands_queue_delayed", "Messages not due yet", labels=["queue"])
        held = GaugeMetricFamily(
            "errands_queue_held", "Messages that workers have taken and not finished", labels=["queue"]
        )
        paused = GaugeMetricFamily(
            "errands_queue_paused", "1 where no worker reads the queue for now", labels=["queue"]
        )
        stopped = queues.paused(self._app)
        for name, found in sorted(queues.depths(self._app).items()):
            depth.add_metric([name], found.depth)
            if found.oldest_s is not None or found.depth == 0:
                oldest.add_metric([name], found.oldest_s or 0.0)
            if queues.kind_of(self._app) is queues.Kind.STREAMS:
                delayed.add_metric([name], found.delayed)
                held.add_metric([name], found.held)
                paused.add_metric([name], int(name in stopped))
        yield from (depth, oldest, delayed, held, paused)

    def _runs(self) -> Iterator[Metric]:
        with probes.record_errors(), self._app.database.reading() as connection:
            counters = reads.counters(connection)
            ended = summaries.finished(connection, clock.now() - timedelta(hours=1))
            unsent = reads.outbox_length(connection)
        total = CounterMetricFamily(
            "celery_tasks", "How often runs of a task came into a state", labels=["task", "state"]
        )
        for (task, state), count in sorted(counters.runs.items()):
            total.add_metric([task, state], count)
        yield total
        duration = HistogramMetricFamily(
            "celery_task_duration_seconds", "How long attempts took", labels=["task"]
        )
        for histogram in counters.durations:
            buckets = [(_bound(le), float(count)) for le, count in histogram.buckets]
            duration.add_metric([histogram.task], buckets, histogram.sum)
        yield duration
        failed = sum(ended.get(state, 0) for state in _FAILED)
        yield GaugeMetricFamily(
            "errands_failure_rate",
            "Share of failed runs among those that ended in the last hour, 0 to 1",
            value=failed / max(1, sum(ended.values())),
        )
        yield GaugeMetricFamily("errands_outbox_length", "Committed runs not sent yet", value=unsent)
        if not self._app.settings.inline:
            try:
                lag = probes.ledger_lag(self._app)
            except BrokerUnavailable:
                return
            yield GaugeMetricFamily(
                "errands_events_behind", "Events that the ledger does not have yet", value=lag.events
            )
            yield GaugeMetricFamily(
                "errands_events_behind_seconds", "Since the first of them was written", value=lag.seconds
            )
            yield CounterMetricFamily(
                "errands_events_missing",
                "Events that the stream dropped before the ledger had them",
                value=lag.missing,
            )


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == math.inf else str(float(seconds))


def render(app: App, accept: str = "") -> tuple[bytes, str]:
    """The metrics as text, in the format that an `Accept` header asks for, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AppCollector(app))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
