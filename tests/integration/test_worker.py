"""A real worker of Celery's prefork pool, on each broker that answers."""

from __future__ import annotations

import base64
import gc
import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, group
from celery.exceptions import TimeLimitExceeded

import servers
from errands import Discard, Errands, InvalidArguments, Keyring, State
from errands.broker import workers
from errands.broker.events import EventStream
from errands.broker.runs import LiveRun
from errands.core.events import Event, Kind
from errands.doors.local.valkey import EmbeddedValkey
from processes import Worker, until

BROKERS = [
    "valkey",
    *(["redis"] if servers.stock_redis() else []),
    *(["rabbitmq"] if servers.rabbitmq() else []),
]


@dataclass
class Rig:
    """A running worker, and the same app in this process to send with."""

    app: Errands
    worker: Worker
    effects: Path
    valkey: redis.Redis
    broker: str

    def run(self, run_id: str) -> LiveRun | None:
        return self.app.live.get(run_id)

    def ended(self, run_id: str) -> LiveRun:
        def final() -> LiveRun | None:
            run = self.run(run_id)
            return run if run and run.final else None

        found: LiveRun = until(final, what=f"run {run_id} ends")
        return found

    def events(self, run_id: str) -> list[Event]:
        entries = EventStream(self.valkey, self.app.keys.events).read(count=10_000)
        return [event for _, event, _ in entries if event and event.run_id == run_id]

    def lines(self, word: str) -> list[str]:
        text = self.effects.read_text() if self.effects.exists() else ""
        return [line for line in text.splitlines() if line.startswith(word)]


@pytest.fixture(scope="module", params=BROKERS)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp(f"worker-{request.param}")
    queue = f"errands-test-{uuid.uuid4().hex[:8]}"
    with EmbeddedValkey(folder / "valkey") as valkey:
        broker = {
            "valkey": valkey.url,
            "redis": getattr(servers.stock_redis(), "url", ""),
            "rabbitmq": getattr(servers.rabbitmq(), "url", ""),
        }[request.param]
        environment = {
            "ERRANDS_HOME": str(folder),
            "ERRANDS_BROKER_URL": broker,
            "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url,
            "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "ERRANDS_UNKNOWN_TASK_PATIENCE": "2",
            "SAMPLE_QUEUE": queue,
            "SAMPLE_EFFECTS": str(folder / "effects"),
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            app = load_sample()
        worker = Worker(environment, folder / "worker.log", "-c", "2")
        try:
            worker.wait_until_ready()
            with redis.Redis.from_url(valkey.url) as client:
                yield Rig(app, worker, folder / "effects", client, request.param)
        finally:
            worker.stop()
            gc.collect()  # results unsubscribe when they go, and the server must still be there
            clear(app, [queue, f"{queue}-default"])
            app.close()


def load_sample() -> Errands:
    """The sample app, made anew for this environment."""
    import runpy

    from processes import SAMPLE

    app: Errands = runpy.run_path(str(SAMPLE / "sample_app.py"))["app"]
    app.finalize()
    return app


def clear(app: Errands, queues: list[str]) -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for queue in queues:
            channel.queue_delete(queue)


@pytest.fixture(autouse=True)
def _say_where(request: pytest.FixtureRequest, rig: Rig) -> None:
    found = {"redis": servers.stock_redis(), "rabbitmq": servers.rabbitmq()}.get(rig.broker)
    request.node.user_properties.append(
        ("errands server", found.label if found else "embedded Valkey as broker")
    )


def task(rig: Rig, name: str) -> Any:
    return rig.app.tasks[name]


def test_plain_and_asynchronous_tasks(rig: Rig) -> None:
    assert task(rig, "add").delay("1", 2).get(timeout=20) == 3
    result = task(rig, "about").delay()
    told = result.get(timeout=20)
    assert {told["run"], told["request"], *told["children"]} == {result.id}


def test_one_event_loop_for_all_runs_of_a_process(rig: Rig) -> None:
    """Mistake 19: a new event loop per task."""
    told = [result.get(timeout=20) for result in [task(rig, "about").delay() for _ in range(12)]]
    loops = {(item["pid"], item["loop"]) for item in told}
    assert len(loops) == len({pid for pid, _ in loops})


def test_retries_are_counted_and_told(rig: Rig) -> None:
    result = task(rig, "flaky").delay(2)
    assert result.get(timeout=20) == 3
    run = rig.ended(result.id)
    assert (run.state, run.attempt, run.facts["max_attempts"]) == (State.SUCCEEDED, 3, 3)
    kinds = [event.kind for event in rig.events(result.id)]
    kinds.remove(Kind.QUEUED)  # a fast worker may be there before the producer's own record
    if rig.broker == "rabbitmq":
        # There the next attempt may begin before the end of the last one is told, which is not heard then.
        assert [kind for kind in kinds if kind is not Kind.RETRYING] == [Kind.STARTED] * 3 + [Kind.SUCCEEDED]
    else:
        assert kinds == [*[Kind.STARTED, Kind.RETRYING] * 2, Kind.STARTED, Kind.SUCCEEDED]


def test_tries_used_up(rig: Rig) -> None:
    result = task(rig, "flaky").delay(9)
    with pytest.raises(ConnectionError, match="attempt 3"):
        result.get(timeout=20)
    assert rig.ended(result.id).facts["error"]["message"] == "attempt 3"


def test_a_snooze_is_not_counted(rig: Rig, tmp_path: Path) -> None:
    result = task(rig, "snoozed").delay(str(tmp_path / "mark"))
    assert result.get(timeout=20) == 1
    assert Kind.SNOOZED in [event.kind for event in rig.events(result.id)]


def test_a_discard_ends_it(rig: Rig) -> None:
    result = task(rig, "incomplete").delay()
    with pytest.raises(Discard):
        result.get(timeout=20)
    run = rig.ended(result.id)
    assert (run.state, run.attempt) == (State.DISCARDED, 1)


def test_a_soft_limit_lets_asynchronous_work_end_with_a_part(rig: Rig) -> None:
    assert task(rig, "partial").delay().get(timeout=20) == "partial result"


def test_a_hard_limit_ends_what_does_not_listen(rig: Rig) -> None:
    result = task(rig, "stubborn").delay()
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=30)
    assert rig.ended(result.id).facts["error"]["type"] == "TimeLimitExceeded"
    assert task(rig, "add").delay(1, 1).get(timeout=30) == 2


def test_a_worker_that_dies_is_told_and_its_run_starts_again(rig: Rig) -> None:
    result = task(rig, "dies_once").delay()
    assert result.get(timeout=60) == 2
    assert [line.split()[1] for line in rig.lines("dies_once")] == ["1", "2"]


def test_a_message_whose_process_died_unheard_is_done(rig: Rig) -> None:
    """Prefork had not heard that the child began, and gives its message to another one."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    run_id = rig.app.new_id()
    began = Event(
        kind=Kind.STARTED, run_id=run_id, at=time.time(), task="add", worker=rig.worker.name, pid=gone.pid
    )
    rig.app.live.record(began, hop=0)
    with plain_celery(rig) as sender:
        sender.send_task("add", (1, 2), task_id=run_id, queue=task(rig, "add").rules.queue)
    run = rig.ended(run_id)
    assert (run.state, run.attempt, run.facts["result"]) == (State.SUCCEEDED, 2, 3)


def test_what_kills_workers_is_given_up(rig: Rig) -> None:
    result = task(rig, "deadly").delay()
    run: LiveRun = until(lambda: (r := rig.run(result.id)) and r.final and r, 90, "given up")
    assert run.state is State.FAILED
    assert "3 workers died" in run.facts["error"]["message"]
    assert len(rig.lines("deadly")) == 3
    assert "3 workers died" in (dead_letter(rig, lambda e: e.run_id == result.id).note or "")


def test_no_secret_is_found_anywhere(rig: Rig) -> None:
    """Mistake 8: anyone with Redis, Flower or the logs had the reset token."""
    secret = f"sesame-{uuid.uuid4().hex}"
    result = task(rig, "reset").delay("ann@example.com", secret)
    with pytest.raises(RuntimeError, match=r"no account for \*\*\*"):
        result.get(timeout=20)
    rig.ended(result.id)
    assert any(secret in line for line in rig.lines("reset")), "the task itself must get it"
    everything = b"".join(_dump(rig.valkey, key) for key in rig.valkey.scan_iter(count=1000))
    assert result.id.encode() in everything
    assert secret.encode() not in everything
    assert secret not in rig.worker.log.read_text()


def _dump(client: redis.Redis, key: bytes) -> bytes:
    kind = client.type(key)
    readers: dict[bytes, Any] = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"stream": lambda: client.xrange(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
    }
    return repr(readers[kind]()).encode() if kind in readers else b""


def test_a_revoked_run_does_not_start_though_no_worker_remembers(rig: Rig) -> None:
    result = task(rig, "noted").apply_async(("revoked",), countdown=1.0)
    rig.app.live.record(Event(kind=Kind.REVOKED, run_id=result.id, at=0.0))
    marker = task(rig, "noted").apply_async(("marker",), countdown=1.5)
    assert marker.get(timeout=20) == "marker"
    assert not [line for line in rig.lines("noted") if "revoked" in line]
    run = rig.run(result.id)
    assert run is not None
    assert run.state is State.REVOKED


def test_a_follow_up_sent_twice_is_one_run(rig: Rig) -> None:
    word = uuid.uuid4().hex
    child = task(rig, "follow").delay(word).get(timeout=20)
    assert rig.ended(child).state is State.SUCCEEDED
    assert len([line for line in rig.lines("noted") if word in line]) == 1
    run = rig.run(child)
    assert run is not None
    assert run.facts["parent_id"] == run.facts["root_id"]


def test_a_copy_of_a_run_at_work_is_neither_run_nor_lost(rig: Rig, tmp_path: Path) -> None:
    """Mistake 27: what waits or runs longer than the visibility timeout was given out, and done, twice."""
    if rig.broker != "valkey":
        pytest.skip("the copy is made with the embedded Valkey's own means")
    go, mark = tmp_path / "go", uuid.uuid4().hex[:6]
    queue = task(rig, "patient").rules.queue
    with plain_celery(rig) as sender:
        result = sender.send_task("patient", (str(go), mark), queue="aside")
    message = json.loads(rig.valkey.lpop("aside"))
    message["properties"]["delivery_info"]["routing_key"] = queue
    rig.valkey.lpush(queue, json.dumps(message))
    until(lambda: rig.lines(f"begun {mark}"), what="the run has begun")
    message["properties"]["delivery_info"]["redelivered"] = True
    message["properties"]["delivery_tag"] = str(uuid.uuid4())
    rig.valkey.lpush(queue, json.dumps(message))
    delayed = f"{rig.app.keys.prefix}q:{queue}:delayed:messages"
    waits = until(
        lambda: [raw for raw in rig.valkey.hvals(delayed) if b'"copy":true' in raw], what="the copy waits"
    )
    assert result.id.encode() in waits[0]
    go.touch()
    assert rig.ended(result.id).state is State.SUCCEEDED
    assert len(rig.lines(f"begun {mark}")) == 1


def test_progress_is_live(rig: Rig) -> None:
    result = task(rig, "steps").delay(200)
    assert result.get(timeout=20) == 200
    run = rig.ended(result.id)
    assert run.facts["progress"] == {"current": 200, "total": 200, "percentage": 100, "note": "step 200"}


def test_old_names_are_answered(rig: Rig) -> None:
    result = rig.app.send_task("plus", (2, 3))
    assert result.get(timeout=20) == 5
    assert rig.ended(result.id).facts["queue"] == task(rig, "add").rules.queue


def test_canvas(rig: Rig) -> None:
    add = task(rig, "add")
    assert chain(add.s(1, 2), add.s(3)).apply_async().get(timeout=20) == 6
    assert group(add.s(n, n) for n in range(5)).apply_async().get(timeout=20) == [0, 2, 4, 6, 8]


def test_a_chain_whose_next_step_does_not_fit_fails_that_step(rig: Rig) -> None:
    add = task(rig, "add")
    result = chain(add.s(1, 2), add.s("x")).apply_async()
    with pytest.raises(InvalidArguments):
        result.get(timeout=20)
    assert result.parent.get(timeout=20) == 3


# -- messages that no task can take


def dead_letter(rig: Rig, match: Any) -> Event:
    def find() -> Event | None:
        entries = EventStream(rig.valkey, rig.app.keys.events).read(count=10_000)
        return next((e for _, e, _ in entries if e and e.kind is Kind.DEAD_LETTER and match(e)), None)

    found: Event = until(find, what="a dead letter")
    return found


def test_an_unknown_task_is_kept_with_the_reason(rig: Rig) -> None:
    result = rig.app.send_task("no_such_task", (1,), {"a": 2}, queue=task(rig, "add").rules.queue)
    letter = dead_letter(rig, lambda e: e.run_id == result.id)
    assert "'no_such_task'" in (letter.note or "")
    assert letter.message is not None
    assert json.loads(base64.b64decode(letter.message["body"]))[:2] == [[1], {"a": 2}]
    assert rig.ended(result.id).state is State.FAILED


def test_wrong_arguments_from_outside_are_kept_with_the_reason(rig: Rig) -> None:
    with plain_celery(rig) as sender:
        run_id = sender.send_task("add", ("one", 2), queue=task(rig, "add").rules.queue).id
    letter = dead_letter(rig, lambda e: e.run_id == run_id)
    assert "valid integer" in (letter.note or "")
    assert rig.ended(run_id).state is State.DISCARDED


@pytest.mark.parametrize(
    ("body", "headers", "word"),
    [
        (b"\xff\xfe{not json", {"task": "add", "id": "undecodable-1"}, "decoded"),
        (b'{"hello": 1}', {}, "names no task"),
        (b"[[1, 2], {}, {}]", {"task": "add"}, ""),
    ],
    ids=["undecodable", "not a task", "without an id"],
)
def test_a_message_that_is_no_message_is_kept(
    rig: Rig, body: bytes, headers: dict[str, Any], word: str
) -> None:
    mark = uuid.uuid4().hex
    with (
        rig.app.connection_for_write() as connection,
        connection.SimpleQueue(task(rig, "add").rules.queue) as queue,
    ):
        queue.producer.publish(
            body, content_type="application/json", content_encoding="utf-8",
            headers={**headers, "mark": mark}, routing_key=task(rig, "add").rules.queue, exchange="",
        )  # fmt: skip
    letter = dead_letter(rig, lambda e: e.message and e.message.get("headers", {}).get("mark") == mark)
    assert word in (letter.note or "")
    assert letter.message is not None
    assert base64.b64decode(letter.message["body"]) == body
    assert task(rig, "add").delay(2, 2).get(timeout=20) == 4, "the worker goes on"


@pytest.mark.parametrize(
    "entry", [b"garbage{", b"[1, 2]", b'{"body": 1}', b'{"properties": {}, "body": "x"}']
)
def test_an_entry_that_is_no_message_at_all_is_kept(rig: Rig, entry: bytes) -> None:
    if rig.broker == "rabbitmq":
        pytest.skip("whatever RabbitMQ delivers is a message")
    with redis.Redis.from_url(rig.app.settings.broker_url) as client:
        client.lpush(task(rig, "add").rules.queue, entry)
    encoded = base64.b64encode(entry).decode()
    letter = dead_letter(rig, lambda e: e.message and e.message.get("body") == encoded)
    assert letter.queue == task(rig, "add").rules.queue
    assert "no message" in (letter.note or "")
    assert task(rig, "add").delay(2, 3).get(timeout=20) == 5, "the worker goes on"


def plain_celery(rig: Rig) -> Celery:
    """A producer that knows nothing of us."""
    app = Celery(
        "plain", broker=rig.app.conf.broker_url, backend=rig.app.conf.result_backend, set_as_current=False
    )
    app.conf.task_create_missing_queues = True
    return app


def test_a_plain_celery_producer_is_served_and_recorded(rig: Rig) -> None:
    with plain_celery(rig) as sender:
        result = sender.send_task("add", (20, 22), queue=task(rig, "add").rules.queue)
        assert result.get(timeout=20) == 42
    run = rig.ended(result.id)
    assert (run.state, run.facts["result"], run.facts["args"]) == (State.SUCCEEDED, 42, [20, 22])


def test_the_worker_tells_what_it_serves(rig: Rig) -> None:
    told = until(lambda: workers.alive(rig.valkey, rig.app.keys), what="a heartbeat")
    facts = told[rig.worker.name]
    assert facts["queues"] == sorted(q for q in rig.app.queue_names if q.startswith("errands-test"))
    assert facts["concurrency"] == 2
    assert facts["rss"] > 0


def test_the_worker_tells_what_it_is_at(rig: Rig, tmp_path: Path) -> None:
    result = task(rig, "patient").delay(str(tmp_path / "go"), "told")

    def told() -> bool:
        return result.id in workers.alive(rig.valkey, rig.app.keys)[rig.worker.name]["runs"]

    until(told, what="it is named")
    (tmp_path / "go").touch()
    assert result.get(timeout=20) == "told"
    until(lambda: not told(), what="it is named no more")


def test_log_lines_carry_task_and_id(rig: Rig) -> None:
    result = task(rig, "flaky").delay(0)
    result.get(timeout=20)
    line = f"flaky[{result.id}]"
    until(lambda: line in rig.worker.log.read_text(), what=line)
