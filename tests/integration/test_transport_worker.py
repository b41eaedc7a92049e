"""Plain Celery workers, as processes of their own, on our transport."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from errands.broker import queues
from errands.doors.local.valkey import EmbeddedValkey
from processes import Worker, until
from streams import Broker

QUEUE = "celery"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "server") as made:
        yield made


@pytest.fixture
def broker(server: EmbeddedValkey, key_prefix: str) -> Iterator[Broker]:
    made = Broker(server.url, key_prefix)
    yield made
    made.close()


@pytest.fixture
def app(broker: Broker) -> Iterator[Celery]:
    """The application of the workers, as a producer sees it."""
    app = Celery("producer", broker=broker.url, backend=broker.url, set_as_current=False)
    app.conf.broker_transport = "errands.broker.transport:Transport"
    app.conf.broker_transport_options = {"key_prefix": broker.keys.prefix}
    yield app
    app.close()


class Crew:
    """Worker processes of the plain application."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.effects = folder / "effects"
        self.effects.touch()
        self.go = folder / "go"
        self._folder = folder
        self._environment = {
            "STREAMS_BROKER": broker.url,
            "STREAMS_PREFIX": broker.keys.prefix,
            "SAMPLE_EFFECTS": str(self.effects),
        }
        self.workers: list[Worker] = []

    def start(self, *options: str) -> Worker:
        name = f"plain{len(self.workers)}"
        command = (
            "-m",
            "celery",
            "-A",
            "streams_app:app",
            "worker",
            "-n",
            f"{name}@test",
            "-l",
            "INFO",
            *options,
        )
        worker = Worker(self._environment, self._folder / f"{name}.log", command=command)
        self.workers.append(worker)
        return worker.wait_until_ready()

    def told(self, word: str) -> list[str]:
        """What tasks noted: the numbers of those that have `begun` or are `done`."""
        return [line.split()[1] for line in self.effects.read_text().splitlines() if line.startswith(word)]


@pytest.fixture
def crew(broker: Broker, tmp_path: Path) -> Iterator[Crew]:
    made = Crew(broker, tmp_path)
    yield made
    for worker in made.workers:
        worker.kill()


def test_a_killed_workers_messages_are_done_by_another(app: Celery, broker: Broker, crew: Crew) -> None:
    first = crew.start("-c", "2")
    for n in range(8):
        app.send_task("patient", (str(crew.go), n))
    until(
        lambda: len(crew.told("begun")) == 2 and broker.depth(QUEUE).held == 8, what="two run, six wait there"
    )
    crew.start("-c", "2")
    first.kill()
    killed = time.monotonic()
    until(lambda: len(crew.told("begun")) == 4, 30, "others have taken two of them")
    assert time.monotonic() - killed < 30
    crew.go.touch()
    until(lambda: sorted(set(crew.told("done"))) == [str(n) for n in range(8)], what="all are done")
    assert len(crew.told("done")) == 8
    until(lambda: broker.depth(QUEUE) == queues.QueueDepth(0, None), what="all are acknowledged")


def test_a_restart_of_the_broker_repeats_nothing(
    app: Celery, broker: Broker, server: EmbeddedValkey, crew: Crew
) -> None:
    crew.start("-c", "2")
    for n in range(6):
        app.send_task("patient", (str(crew.go), n))
    until(lambda: len(crew.told("begun")) == 2 and broker.depth(QUEUE).held == 6)
    broker.client.execute_command("WAITAOF", 1, 0, 5000)
    server.kill()
    server.start()
    # The two go on; the four that waited are given back, and taken again.
    until(lambda: broker.depth(QUEUE).held == 6, 40, "the worker consumes again")
    crew.go.touch()
    until(lambda: len(set(crew.told("done"))) == 6, what="all are done")
    until(lambda: broker.depth(QUEUE) == queues.QueueDepth(0, None), what="all are acknowledged")
    assert sorted(crew.told("begun")) == [str(n) for n in range(6)]


def test_a_worker_that_is_told_to_stop_gives_back(app: Celery, broker: Broker, crew: Crew) -> None:
    worker = crew.start("-c", "1")
    for n in range(4):
        app.send_task("patient", (str(crew.go), n))
    until(lambda: len(crew.told("begun")) == 1 and broker.depth(QUEUE).held == 4)
    worker.process.send_signal(signal.SIGTERM)
    crew.go.touch()
    assert worker.process.wait(30) == 0
    done = len(crew.told("done"))
    depth = broker.depth(QUEUE)
    assert (depth.depth, depth.held) == (4 - done, 0)
    assert not list(broker.client.scan_iter(broker.keys.lease("*"))), "it has let go of its lease"


def test_what_is_acknowledged_early_does_not_run_again(app: Celery, broker: Broker, crew: Crew) -> None:
    worker = crew.start("-c", "1")
    app.send_task("early", (str(crew.go), 1))
    until(lambda: crew.told("begun") == ["1"])
    until(lambda: broker.depth(QUEUE).held == 0, 5, "it is acknowledged though it runs")
    worker.kill()
    assert broker.depth(QUEUE) == queues.QueueDepth(0, None)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_results_control_and_delays_work_in_each_pool(app: Celery, crew: Crew, pool: str) -> None:
    crew.start("-P", pool, "-c", "2")
    results = [app.send_task("add", (n, 1)) for n in range(50)]
    assert [result.get(timeout=20) for result in results] == list(range(1, 51))
    due = time.time() + 1
    assert app.send_task("add", (1, 1), countdown=1).get(timeout=20) == 2
    assert time.time() >= due
    (name,) = app.control.ping(timeout=5)[0]
    assert name.startswith("plain0@")
