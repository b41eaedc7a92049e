"""Batches with real workers: counted once whoever dies, and what follows comes once."""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError

import servers
from errands import BatchStatus, Errands, Keyring, State
from errands.beat.batches import BatchKeeper
from errands.doors.local.valkey import EmbeddedValkey
from processes import ROOT, SAMPLE, Worker, until

SETUPS = [
    "prefork",
    "asyncio",
    *(["redis"] if servers.stock_redis() else []),
    *(["rabbitmq"] if servers.rabbitmq() else []),
]


@dataclass
class Rig:
    """Two workers, and the same app in this process."""

    app: Errands
    environment: dict[str, str]
    folder: Path
    workers: list[Worker]
    options: tuple[str, ...]

    def task(self, name: str) -> Any:
        return self.app.tasks[name]

    def lines(self, word: str, about: str) -> list[list[str]]:
        effects = self.folder / "effects"
        text = effects.read_text() if effects.exists() else ""
        return [words for words in map(str.split, text.splitlines()) if words[:2] == [word, about]]

    def batch(self, name: str = "", **options: Any) -> Any:
        follows = {"on_success": self.task("announce").s(term=5), "on_complete": self.task("tidy").s()}
        return self.app.batch(name, **{**follows, **options})

    def start(self) -> Worker:
        number = len(list(self.folder.glob("*.log")))
        worker = Worker(
            self.environment, self.folder / f"worker-{number}.log", *self.options, app="batch_app:app"
        ).wait_until_ready()
        self.workers.append(worker)
        return worker

    def over(self, batch: Any, seconds: float = 60.0) -> BatchStatus:
        """How the batch ended, after what follows it has run once."""
        keeper = BatchKeeper(self.app)

        def followed() -> bool:
            keeper.step()
            return bool(self.lines("tidy", batch.id))

        until(followed, seconds, f"{batch!r} ends")
        found: BatchStatus = batch.status()
        if found.state is State.SUCCEEDED:
            until(lambda: self.lines("announce", batch.id), what="on_success comes")
        return found

    def followed(self, batch: Any) -> tuple[int, int]:
        return len(self.lines("announce", batch.id)), len(self.lines("tidy", batch.id))


@pytest.fixture(scope="module", params=SETUPS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp(f"batches-{request.param}")
    with EmbeddedValkey(folder / "valkey") as valkey:
        broker = {
            "redis": getattr(servers.stock_redis(), "url", ""),
            "rabbitmq": getattr(servers.rabbitmq(), "url", ""),
        }.get(request.param, valkey.url)
        environment = {
            "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": broker, "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "SAMPLE_QUEUE": f"errands-test-{uuid.uuid4().hex[:8]}", "SAMPLE_EFFECTS": str(folder / "effects"),
            "SAMPLE_POOL": "asyncio" if request.param == "asyncio" else "prefork",
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            app: Errands = runpy.run_path(str(SAMPLE / "batch_app.py"))["app"]
            app.finalize()
        options = ("-c", "30") if request.param == "asyncio" else ("-c", "2")
        made = Rig(app, environment, folder, [], options)
        try:
            made.start()
            made.start()
            yield made
        finally:
            for worker in made.workers:
                worker.stop()
            gc.collect()  # results unsubscribe when they go, and the server must still be there
            with app.connection_for_write() as connection:
                connection.default_channel.queue_delete(environment["SAMPLE_QUEUE"])
            app.close()


# -- on every broker


def test_what_follows_comes_once_and_knows_the_outcome(rig: Rig) -> None:
    with rig.batch("May") as batch:
        for n in range(20):
            rig.task("report").delay(n)
    assert rig.over(batch).state is State.SUCCEEDED
    assert rig.lines("announce", batch.id) == [["announce", batch.id, "5", "succeeded", "20"]]
    assert rig.lines("tidy", batch.id) == [["tidy", batch.id, "succeeded", "20", "20", "0"]]


def test_one_that_fails_is_told_and_nothing_is_announced(rig: Rig) -> None:
    with rig.batch() as batch:
        rig.task("report").delay_many([(n,) for n in range(5)])
        bad = rig.task("refuse").delay()
    status = rig.over(batch)
    assert (status.state, status.total, status.failed) == (State.FAILED, 6, 1)
    assert status.failed_ids == (bad.id,)
    assert rig.followed(batch) == (0, 1)


def test_retries_and_snoozes_are_no_ends(rig: Rig, tmp_path: Path) -> None:
    with rig.batch() as batch:
        rig.task("flaky").delay()
        rig.task("snoozes").delay(str(tmp_path / "mark"))
    assert rig.over(batch).succeeded == 2
    assert rig.followed(batch) == (1, 1)


def test_a_member_may_send_more_members(rig: Rig) -> None:
    with rig.batch() as batch:
        rig.task("spreads").delay(7)
    assert rig.over(batch).total == 8


def test_no_member_no_hang(rig: Rig) -> None:
    with rig.batch("empty") as batch:
        pass
    assert rig.over(batch).state is State.SUCCEEDED
    assert rig.followed(batch) == (1, 1)


def test_a_chain_is_done_when_its_last_link_is(rig: Rig) -> None:
    add = rig.task("add")
    with rig.batch() as batch:
        chain(add.s(1, 2), add.s(3), add.s(4)).delay()
        group(add.s(n, n) for n in range(3)).delay()
        chord([add.s(n, n) for n in range(3)], rig.task("total").s()).delay()
        add.apply_async((1, 1), link=add.s(5))
    status = rig.over(batch)
    assert (status.state, status.total) == (State.SUCCEEDED, 3 + 3 + 4 + 2)


def test_a_revoked_member_ends_though_nobody_ran_it(rig: Rig) -> None:
    from errands.core.events import Event, Kind

    with rig.batch() as batch:
        rig.task("report").delay(1)
        late = rig.task("report").apply_async((2,), countdown=3600)
    rig.app.live.record(Event(kind=Kind.REVOKED, run_id=late.id, at=0.0))
    assert rig.over(batch).failed_ids == (late.id,)
    rig.app.control.revoke(late.id)


# -- who dies


def test_a_killed_worker_costs_nothing_and_counts_nothing_twice(rig: Rig, tmp_path: Path) -> None:
    """Half of the work is in its hands when it dies; the other worker takes it over."""
    if rig.app.conf.broker_transport != "errands.broker.transport:Transport":
        pytest.skip("stock brokers give a dead worker's messages out late")
    gate = tmp_path / "go"
    victim = rig.start()
    task = rig.task("areport" if "30" in rig.options else "report")
    with rig.batch() as batch:
        task.delay_many([(n, str(gate)) for n in range(60)])
    until(lambda: len(rig.lines("report", str(gate))) >= 3, what="all three workers are at it")
    victim.kill()
    gate.touch()
    status = rig.over(batch, 90)
    assert (status.state, status.total, status.succeeded) == (State.SUCCEEDED, 60, 60)
    assert rig.followed(batch) == (1, 1)


def test_the_last_two_race_and_one_of_them_ends_it(rig: Rig, tmp_path: Path) -> None:
    """Two members that end in the same moment, in the hands of two workers, many times."""
    batches = []
    for _ in range(50):
        with rig.batch() as batch:
            rig.task("report").delay_many([(1,), (2,)])
        batches.append(batch)
    for batch in batches:
        assert rig.over(batch).done == 2
    assert {rig.followed(batch) for batch in batches} == {(1, 1)}


def test_a_message_that_comes_twice_counts_once(rig: Rig) -> None:
    if rig.app.conf.broker_transport != "errands.broker.transport:Transport":
        pytest.skip("it writes into our own streams")
    queue = rig.environment["SAMPLE_QUEUE"]
    stream = rig.app.keys.stream(queue, "normal")
    with rig.batch() as batch:
        ids = rig.task("report").delay_many([(n,) for n in range(10)])
        with redis.Redis.from_url(rig.environment["ERRANDS_VALKEY_URL"]) as client:
            rows: Any = client.xrevrange(stream, count=30)
            copies = [fields for _, fields in rows if any(run_id.encode() in fields[b"m"] for run_id in ids)]
            for fields in copies:
                client.xadd(stream, fields)
    assert rig.over(batch).done == 10
    assert batch.status().total == 10
    assert rig.followed(batch) == (1, 1)


PRODUCER = """
import os, signal, sys
from batch_app import app, report, announce, tidy
with app.batch("half", on_success=announce.s(term=5), on_complete=tidy.s(), open_for=1) as batch:
    for n in range(5):
        report.delay(n)
    print(batch.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_batch_whose_maker_dies_in_its_block_closes_by_itself_and_fails(rig: Rig) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(SAMPLE)])
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER], env={**os.environ, **rig.environment, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    batch = rig.app.get_batch(done.stdout.strip())
    status = rig.over(batch)
    assert (status.state, status.total, status.succeeded) == (State.FAILED, 5, 5)
    assert "sender was not heard of" in status.fault
    assert rig.followed(batch) == (0, 1)


def test_a_task_that_dies_in_its_block_goes_on_with_its_batch(rig: Rig) -> None:
    if rig.app.conf.broker_transport != "errands.broker.transport:Transport":
        pytest.skip("stock brokers give a dead worker's messages out after an hour")
    if "30" in rig.options:
        pytest.skip("it takes its worker down, with all that others have in hand")
    batch = rig.app.get_batch(str(uuid.uuid4()))
    rig.task("dies_in_the_block").delay(batch.id)
    status = rig.over(batch, 90)
    assert (status.state, status.total) == (State.SUCCEEDED, 10)
    assert len(rig.lines("tidy", batch.id)) == 1


def test_a_revoked_batch_starts_nothing_more(rig: Rig, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    with rig.batch() as batch:
        members = rig.task("report").delay_many([(n, str(gate)) for n in range(200)])
    batch.revoke("not needed")
    gate.touch()
    status = rig.over(batch)
    assert (status.state, status.total, status.pending) == (State.REVOKED, 200, 0)
    assert status.succeeded < 200
    assert rig.followed(batch) == (0, 1)
    states = [run.state for run in rig.app.live.get_many(members).values()]
    assert states.count(State.REVOKED) == status.failed
    with pytest.raises(TaskRevokedError):
        rig.app.AsyncResult(members[-1]).get(timeout=20)
