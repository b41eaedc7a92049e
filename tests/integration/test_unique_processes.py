"""Unique runs over many processes: callers at the same time, workers that die, each kind of broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

import servers
from errands import Errands, State
from errands.core.errors import BrokerUnavailable
from errands.doors.local.ports import free_port
from errands.doors.local.valkey import EmbeddedValkey
from processes import ROOT, SAMPLE, Worker, until

PROCESSES, THREADS = 8, 8
BROKERS = [
    "valkey",
    *(["redis"] if servers.stock_redis() else []),
    *(["rabbitmq"] if servers.rabbitmq() else []),
]


@pytest.fixture(autouse=True)
def _say_where(request: pytest.FixtureRequest) -> None:
    if "rig" not in request.fixturenames:
        return
    broker = request.getfixturevalue("rig").broker
    found = {"redis": servers.stock_redis(), "rabbitmq": servers.rabbitmq()}.get(broker)
    label = found.label if found else "embedded Valkey as broker"
    request.node.user_properties.append(("errands server", label))


@dataclass
class Rig:
    """The sample app on one broker: here, and as environment for other processes."""

    app: Errands
    environment: dict[str, str]
    folder: Path
    effects: Path
    broker: str

    def worker(self, *options: str) -> Worker:
        queue = self.environment["SAMPLE_QUEUE"]
        log = self.folder / f"worker-{uuid.uuid4().hex[:6]}.log"
        return Worker(
            self.environment, log, "-Q", queue, "-c", "2", *options, app="unique_app:app"
        ).wait_until_ready()

    def lines(self, word: str) -> list[list[str]]:
        text = self.effects.read_text() if self.effects.exists() else ""
        return [line.split() for line in text.splitlines() if line.startswith(f"{word} ")]

    def state(self, run_id: str) -> State | None:
        run = self.app.live.get(run_id)
        return run.state if run is not None else None

    def until_ended(self, *run_ids: str) -> None:
        def ended() -> bool:
            return all(run is not None and run.final for run in map(self.app.live.get, run_ids))

        until(ended, 60, f"{run_ids} end")


@pytest.fixture(scope="module", params=BROKERS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp(f"unique-{request.param}")
    with EmbeddedValkey(folder / "valkey") as valkey:
        broker = {
            "valkey": valkey.url,
            "redis": getattr(servers.stock_redis(), "url", ""),
            "rabbitmq": getattr(servers.rabbitmq(), "url", ""),
        }[request.param]
        environment = {
            "ERRANDS_HOME": str(folder), "ERRANDS_RESULT_URL": valkey.url, "ERRANDS_VALKEY_URL": valkey.url,
            "ERRANDS_BROKER_URL": f"stock+{broker}" if request.param == "redis" else broker,
            "ERRANDS_DATABASE_URL": f"sqlite:///{folder / 'errands.db'}",
            "SAMPLE_QUEUE": f"errands-test-{uuid.uuid4().hex[:8]}", "SAMPLE_EFFECTS": str(folder / "effects"),
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.syspath_prepend(str(SAMPLE))
            sys.modules.pop("unique_app", None)
            import unique_app

            rig = Rig(unique_app.app, environment, folder, folder / "effects", request.param)
            yield rig
            sys.modules.pop("unique_app", None)
            with rig.app.connection_for_write() as connection:
                if request.param == "rabbitmq":
                    connection.channel().queue_delete(environment["SAMPLE_QUEUE"])


@pytest.fixture
def worker(rig: Rig) -> Iterator[Worker]:
    worker = rig.worker()
    yield worker
    worker.stop()


def test_a_race_of_64_callers_makes_one_run(rig: Rig) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(SAMPLE)])
    command = [sys.executable, str(SAMPLE / "unique_app.py"), "race", "1", str(THREADS)]
    callers = [
        subprocess.Popen(
            command,
            env={**os.environ, **rig.environment, "PYTHONPATH": path},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(PROCESSES)
    ]
    for caller in callers:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
    for caller in callers:
        assert caller.stdin is not None
        caller.stdin.write("go\n")
        caller.stdin.flush()
    ids = [run_id for caller in callers for run_id in caller.communicate(timeout=60)[0].split()]
    assert len(ids) == PROCESSES * THREADS
    assert len(set(ids)) == 1
    run = until(lambda: rig.app.live.get(ids[0]))
    assert run.facts["requests"] == PROCESSES * THREADS
    worker = rig.worker()
    try:
        rig.until_ended(ids[0])
        marker = rig.app.tasks["work"].delay(2)
        rig.until_ended(marker.id)
    finally:
        worker.stop()
    assert rig.lines("work") == [["work", "1"], ["work", "2"]]
    assert not rig.app.tasks["work"].delay(1).duplicate


def test_a_worker_that_dies_jams_nothing(rig: Rig) -> None:
    gate = rig.folder / "gate"
    held = rig.app.tasks["held"]
    first_worker = rig.worker("-P", "solo")
    first = held.delay(7, str(gate))
    until(lambda: rig.lines("begun"), what="the run begins")
    assert held.delay(7, "whatever").id == first.id
    first_worker.process.send_signal(signal.SIGKILL)
    first_worker.kill()
    assert held.delay(7, "whatever").id == first.id  # it is not over: its message comes again
    if rig.broker == "redis":  # a stock list gives it back after an hour
        rig.app.live.record(_failed(first.id))
        assert not held.delay(7, str(gate)).duplicate
        return
    second_worker = rig.worker("-P", "solo")
    try:
        until(lambda: len(rig.lines("begun")) == 2, 60, "another worker takes it")
        assert held.delay(7, "whatever").id == first.id
        gate.touch()
        rig.until_ended(first.id)
        assert rig.state(first.id) is State.SUCCEEDED
        after = held.delay(7, str(gate))
        assert not after.duplicate
        rig.until_ended(after.id)
    finally:
        second_worker.stop()


def test_debounce_is_one_run_at_the_end(rig: Rig, worker: Worker) -> None:
    index = rig.app.tasks["index"]
    ids, sent_at = set(), 0.0
    deadline = time.monotonic() + 2.5
    n = 0
    while time.monotonic() < deadline:
        sent_at, n = time.time(), n + 1
        ids.add(index.delay(1, f"t{n}").id)
        time.sleep(0.1)  # requests come one after the other: that is what is debounced
    assert len(ids) == 1
    rig.until_ended(*ids)
    assert [line[1:3] for line in rig.lines("index")] == [["1", f"t{n}"]]
    assert float(rig.lines("index")[0][3]) >= sent_at + 1.0


def test_a_waiting_run_is_replaced(rig: Rig) -> None:
    newest = rig.app.tasks["newest"]
    ids = {newest.delay(1, text).id for text in ("a", "b", "c")}
    assert len(ids) == 1
    worker = rig.worker()
    try:
        rig.until_ended(*ids)
    finally:
        worker.stop()
    assert rig.lines("newest") == [["newest", "1", "c"]]
    run = rig.app.live.get(ids.pop())
    assert run is not None
    assert (run.facts["args"], run.facts["result"]) == ([1, "c"], "c")


def test_a_canvas_of_duplicates_hangs_nowhere(rig: Rig, worker: Worker) -> None:
    work, total = rig.app.tasks["work"], rig.app.tasks["total"]
    header = [work.s(5), work.s(5), work.s(5)]
    assert group(header).apply_async().get(timeout=60) == [5, 5, 5]
    assert chord(header)(total.s()).get(timeout=60) == 15
    assert chain(work.s(6), work.s(), work.s()).apply_async().get(timeout=60) == 6


def _failed(run_id: str) -> Any:
    from errands.core.events import Event, Kind

    return Event(kind=Kind.FAILED, run_id=run_id, at=time.time())


# -- sending by Celery


@pytest.fixture
def other_broker(tmp_path: Path, valkey_url: str, key_prefix: str) -> Errands:
    """An app whose broker is away, and whose Valkey is there."""
    from errands import Settings, Unique

    settings = Settings(
        home=tmp_path, broker_url=f"amqp://guest:guest@127.0.0.1:{free_port()}//", result_url=valkey_url,
        valkey_url=valkey_url, key_prefix=key_prefix,
    )  # fmt: skip
    app = Errands("away", settings=settings, set_as_current=False)

    @app.task(name="t", unique=Unique())
    def t(n: int) -> None: ...

    return app


def test_what_could_not_be_sent_stands_for_nobody(other_broker: Errands) -> None:
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            other_broker.tasks["t"].apply_async((1,), retry=False)
    runs: Any = other_broker.valkey.keys(other_broker.keys.run("*"))
    states = [other_broker.valkey.hget(key, "state") for key in runs]
    assert states == [b"failed", b"failed"]
    assert other_broker.valkey.keys(f"{other_broker.settings.key_prefix}unique:*") == []


def test_a_sender_that_dies_holds_its_claim_for_half_a_minute(other_broker: Errands) -> None:
    from errands.broker.message import any_payload
    from errands.core.events import Event, Kind
    from errands.sending import unique

    task = other_broker.tasks["t"]
    event = Event(kind=Kind.QUEUED, run_id="dead", at=0.0, task="t")
    asked = unique.claim_of(task.rules.unique, task, any_payload((1,), {}), event)
    assert asked is not None
    assert other_broker.live.claim("dead", asked).verdict == "ok"
    reply = other_broker.live.claim("second", asked)
    assert (reply.verdict, reply.about) == ("duplicate", "dead")
    assert other_broker.live.get("dead") is None
    assert 0 < int(other_broker.valkey.ttl(other_broker.keys.run("dead"))) <= 30  # type: ignore[arg-type]
    other_broker.valkey.delete(other_broker.keys.run("dead"))  # as the server does then
    assert other_broker.live.claim("second", asked).verdict == "ok"
