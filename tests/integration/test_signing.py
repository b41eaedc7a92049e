"""An attacker who may write into the broker, real workers of both pools, and keys that are rolled out."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord

import servers
from errands import Errands, Keyring, State
from errands.broker import pause
from errands.broker.events import EventStream
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.events import Event, Kind
from errands.core.signing import Signer
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until

KEY, OTHER = Keyring.new_key("k1"), Keyring.new_key("k2")
POOLS = ("prefork", "asyncio")


@dataclass
class Rig:
    """A broker, and the app in this process, which signs with `KEY`."""

    app: Errands
    valkey: redis.Redis
    folder: Path
    environment: dict[str, str]
    queue: str

    def noted(self) -> list[str]:
        path = self.folder / "effects"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1] for line in lines if line.startswith("noted")]

    def letters(self) -> list[Event]:
        entries = EventStream(self.valkey, self.app.keys.events).read(count=10_000)
        return [event for _, event, _ in entries if event and event.kind is Kind.DEAD_LETTER]

    def letter(self, words: str) -> Event:
        def found() -> Event | None:
            return next((letter for letter in self.letters() if words in (letter.note or "")), None)

        letter: Event = until(found, what=f"a dead letter: {words}")
        return letter

    def push(self, raw: bytes) -> None:
        """What an attacker does."""
        self.valkey.xadd(self.app.keys.stream(self.queue, "normal"), {"m": raw})

    def captured(self, send: Callable[[], Any]) -> bytes:
        """The message of a run as it lies in the broker; it is delivered afterwards."""
        pause.pause(self.app.valkey, self.app.keys, self.queue)
        until(lambda: self.quiet(), what="the workers have noticed the pause")
        stream = self.app.keys.stream(self.queue, "normal")
        send()
        rows: Any = self.valkey.xrevrange(stream, count=1)
        pause.resume(self.app.valkey, self.app.keys, self.queue)
        raw: bytes = rows[0][1][b"m"]
        return raw

    def quiet(self) -> bool:
        """A message that comes is not taken: it is looked at twice, a read's wait apart."""
        stream = self.app.keys.stream(self.queue, "normal")
        groups: Any = self.valkey.xinfo_groups(stream) if self.valkey.exists(stream) else []
        return all(group["pending"] == 0 for group in groups)

    def succeeds(self, run_id: str) -> None:
        def state() -> bool:
            run = self.app.live.get(run_id)
            return run is not None and run.state is State.SUCCEEDED

        until(state, what=f"{run_id} succeeds")

    @contextmanager
    def working(self, pool: str = "asyncio", **environment: str) -> Iterator[Worker]:
        command = ("-m", "errands", "worker", "--app", "sample_app:app", "--pool", pool, "-c", "2")
        log = self.folder / f"{uuid.uuid4().hex[:6]}.log"
        worker = Worker({**self.environment, **environment}, log, command=(*command, "--name", log.stem))
        try:
            worker.wait_until_ready()
            yield worker
        finally:
            worker.stop()


@contextmanager
def rig_on(folder: Path, broker: str = "") -> Iterator[Rig]:
    import runpy

    queue = f"errands-test-{uuid.uuid4().hex[:8]}"
    with EmbeddedValkey(folder / "valkey") as valkey, pytest.MonkeyPatch.context() as patch:
        environment = {
            "ERRANDS_HOME": str(folder),
            "ERRANDS_BROKER_URL": broker or valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url,
            "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "ERRANDS_SIGNING_KEYS": KEY,
            "ERRANDS_UNKNOWN_TASK_PATIENCE": "2",
            "SAMPLE_QUEUE": queue,
            "SAMPLE_EFFECTS": str(folder / "effects"),
        }
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "sample_app.py"))["app"]
        app.finalize()
        with redis.Redis.from_url(valkey.url) as client:
            yield Rig(app, client, folder, environment, queue)
        app.close()


@pytest.fixture(scope="module", params=POOLS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_on(tmp_path_factory.mktemp(request.param)) as rig, rig.working(request.param):
        yield rig


@pytest.fixture
def idle_rig(tmp_path: Path) -> Iterator[Rig]:
    with rig_on(tmp_path) as rig:
        yield rig


def forged(raw: bytes, **changes: Any) -> bytes:
    """A captured message with other headers; `body` is another body, `marks` other marks of ours."""
    message = json.loads(raw)
    if "body" in changes:
        message["body"] = json.dumps(changes.pop("body"))
    marks = changes.pop("marks", None)
    if marks is not None:
        message["headers"]["errands"] = marks
    message["headers"] |= changes
    return json.dumps(message).encode()


# -- what is sent works as ever


def test_all_that_we_send_is_signed(rig: Rig) -> None:
    tasks = rig.app.tasks
    assert tasks["add"].delay(1, 2).get(timeout=20) == 3
    assert tasks["flaky"].delay(1).get(timeout=20) == 2  # a retry
    assert chain(tasks["add"].s(1, 2), tasks["add"].s(4)).delay().get(timeout=20) == 7
    assert chord([tasks["noted"].s("one"), tasks["noted"].s("two")])(tasks["noted"].si("end")).get(timeout=20)
    assert tasks["add"].apply_async((1, 1), countdown=0.5).get(timeout=20) == 2
    assert tasks["add"].apply_async((1, 1), compression="zlib").get(timeout=20) == 2  # kombu sends this one
    assert tasks["follow"].delay("followed").get(timeout=20)
    assert "snoozed" in tasks
    assert tasks["snoozed"].delay(str(rig.folder / uuid.uuid4().hex)).get(timeout=20) == 1
    assert rig.letters() == []


# -- attacks


def test_a_message_of_somebody_else_does_not_run_and_is_kept_whole(rig: Rig) -> None:
    plain = Celery("attacker", broker=rig.environment["ERRANDS_BROKER_URL"])
    plain.conf.broker_transport = "errands.broker.transport:Transport"
    sent = plain.send_task("noted", ("forged",), queue=rig.queue)
    letter = rig.letter("it is not signed")
    assert letter.run_id == sent.id
    assert letter.message is not None
    assert letter.message["headers"]["task"] == "noted"
    assert "forged" not in rig.noted()
    assert rig.app.live.get(sent.id) is None


@pytest.mark.parametrize("what", ["body", "owner", "task", "id", "unsigned", "key"])
def test_a_message_that_was_changed_does_not_run(rig: Rig, what: str) -> None:
    word = f"changed-{what}"
    raw = rig.captured(lambda: rig.app.tasks["noted"].apply_async((word,), owner="ann"))
    run_id = json.loads(raw)["headers"]["id"]
    rig.succeeds(run_id)
    marks = json.loads(raw)["headers"]["errands"]
    new_id = str(uuid.uuid4())
    other = Signer.parse(OTHER)
    assert other is not None
    change: dict[str, Any] = {
        "body": {"body": [["injected"], {}, {}], "id": run_id},
        "owner": {"marks": {**marks, "owner": "root"}},
        "task": {"task": "deadly"},
        "id": {"id": new_id, "root_id": new_id},
        "unsigned": {"marks": {"owner": "root", "hop": 5}},
        "key": {"marks": other.marks(json.loads(raw)["headers"], b"[]", "application/json", "utf-8")},
    }[what]
    before = len(rig.letters())
    rig.push(forged(raw, **change))
    until(lambda: len(rig.letters()) > before, what="a dead letter")
    assert rig.letters()[-1].note.startswith("the message is not trusted: ")  # type: ignore[union-attr]
    # The run that the forged message names is as it was.
    run = rig.app.live.get(run_id)
    assert run is not None
    assert run.state is State.SUCCEEDED
    assert rig.app.live.get(new_id) is None
    assert rig.noted().count(word) == 1
    assert "injected" not in rig.noted()


def test_a_message_that_is_sent_again_does_not_run_again(rig: Rig) -> None:
    raw = rig.captured(lambda: rig.app.tasks["noted"].delay("once"))
    rig.succeeds(json.loads(raw)["headers"]["id"])
    for _ in range(3):
        rig.push(raw)
    after = rig.app.tasks["noted"].delay("after")
    rig.succeeds(after.id)
    until(rig.quiet, what="all was taken and acknowledged")
    assert rig.noted().count("once") == 1


def test_a_forged_entry_that_is_no_message_ends_nobodys_run(rig: Rig) -> None:
    """The transport makes it a dead letter; the run that it names lives on."""
    run = rig.app.tasks["noted"].apply_async(("later",), countdown=3600)
    rig.push(json.dumps({"body": "x", "headers": {"id": run.id, "task": "noted"}, "properties": {}}).encode())
    until(lambda: any(each.run_id == run.id for each in rig.letters()), what="a dead letter")
    live = rig.app.live.get(run.id)
    assert live is not None
    assert live.state is State.SCHEDULED


@pytest.mark.parametrize("where", ["headers", "body"])
def test_what_is_nested_without_end_takes_no_worker_down(rig: Rig, where: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    message = {"body": json.dumps([["x"], {}, {}]), "headers": {"id": f"deep-{where}", "task": "noted"}}
    message |= {"properties": {"delivery_info": {}}, "content-type": "application/json"}
    raw = json.dumps(message | {"content-encoding": "utf-8"})
    rig.push(raw.replace('"x"' if where == "body" else '"noted"', deep).encode())
    rig.succeeds(rig.app.tasks["noted"].delay(f"after-{where}").id)


def test_an_unknown_task_that_nobody_signed_is_not_put_off(rig: Rig) -> None:
    raw = rig.captured(lambda: rig.app.tasks["noted"].delay("known"))
    rig.push(forged(raw, task="unheard-of"))
    letter = rig.letter("changed after it was signed")
    assert letter is not None


def test_a_signed_message_of_an_unknown_task_waits_and_is_signed_still(rig: Rig) -> None:
    run = rig.app.send_task("of-the-next-deploy", queue=rig.queue)
    letter = rig.letter("no task is registered under the name 'of-the-next-deploy'")
    assert letter.run_id == run.id


def test_an_old_message_whose_run_is_forgotten_does_not_run(idle_rig: Rig) -> None:
    rig, tasks = idle_rig, idle_rig.app.tasks
    with clock.use(FakeClock(datetime.now(UTC) - timedelta(hours=30))):
        old = tasks["noted"].delay("old")
        waited = tasks["noted"].delay("waited")
    rig.valkey.delete(rig.app.keys.run(old.id))  # it ended long ago, and this is a copy of its message
    with rig.working():
        rig.succeeds(waited.id)  # Valkey knows that this one has not run
        assert rig.letter("nobody remembers its run").run_id == old.id
    assert rig.noted() == ["waited"]


def test_a_delayed_message_that_is_brought_forward_does_not_run(idle_rig: Rig) -> None:
    rig = idle_rig
    run = rig.app.tasks["noted"].apply_async(("early",), countdown=30 * 24 * 3600)
    kept: Any = rig.valkey.hget(rig.app.keys.delayed_messages(rig.queue), run.id)
    rig.push(kept.partition(b"\0")[2])
    with rig.working():
        rig.letter("before its time")
    live = rig.app.live.get(run.id)
    assert live is not None
    assert live.state is State.SCHEDULED
    assert rig.noted() == []


# -- keys


def test_keys_are_rolled_out_and_rotated_without_losing_a_run(idle_rig: Rig) -> None:
    """First everybody signs, then workers insist; a new key goes behind the old one first."""
    rig = idle_rig
    unsigned = Errands("web", settings=rig.app.settings, queues=[rig.queue])
    unsigned.signer = None  # a web process that was not deployed yet
    send = lambda app, word: app.send_task("noted", (word,), queue=rig.queue)  # noqa: E731
    with rig.working(ERRANDS_ACCEPT_UNSIGNED="true"):
        rig.succeeds(send(unsigned, "unsigned").id)
        rig.succeeds(send(rig.app, "signed").id)
    with rig.working(ERRANDS_SIGNING_KEYS=f"{KEY},{OTHER}"):
        rig.succeeds(send(rig.app, "old-key").id)
        rig.app.signer, rig.app._plan = Signer.parse(f"{OTHER},{KEY}"), None
        rig.succeeds(send(rig.app, "new-key").id)
        refused = send(unsigned, "late")
        rig.letter("it is not signed")
    with rig.working(ERRANDS_SIGNING_KEYS=KEY):
        send(rig.app, "too-early")
        rig.letter("signed with key 'k2'")
    assert sorted(rig.noted()) == ["new-key", "old-key", "signed", "unsigned"]
    live = rig.app.live.get(refused.id)
    assert live is not None
    assert live.state is State.QUEUED
    unsigned.close()


# -- brokers that are not ours


@pytest.mark.parametrize(
    "broker",
    [
        "lists",
        *(["rabbitmq"] if servers.rabbitmq() else []),
    ],
)
def test_celerys_way_is_signed_as_well(tmp_path: Path, broker: str) -> None:
    with EmbeddedValkey(tmp_path / "lists") as lists:
        url = f"stock+{lists.url}" if broker == "lists" else getattr(servers.rabbitmq(), "url", "")
        with rig_on(tmp_path, url) as rig, rig.working("prefork"):
            tasks = rig.app.tasks
            try:
                assert tasks["add"].delay(1, 2).get(timeout=30) == 3
                assert tasks["flaky"].delay(1).get(timeout=30) == 2
                assert chain(tasks["add"].s(1, 2), tasks["add"].s(4)).delay().get(timeout=30) == 7
                assert tasks["add"].apply_async((1, 1), countdown=0.5).get(timeout=30) == 2
                plain = Celery("attacker", broker=url.removeprefix("stock+"))
                plain.send_task("noted", ("forged",), queue=rig.queue)
                rig.letter("it is not signed")
                assert rig.noted() == []
            finally:
                with rig.app.connection_for_write() as connection:
                    for queue in (rig.queue, f"{rig.queue}-default"):
                        connection.default_channel.queue_delete(queue)
