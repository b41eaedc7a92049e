"""Arguments too large for a message, of tasks with `offload=True`: sent in every way, read, lost, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery.exceptions import Ignore
from sqlalchemy import func, select, update

from errands import (
    Errands,
    Keyring,
    PayloadLost,
    PayloadTooLarge,
    PayloadUnavailable,
    Secret,
    Settings,
    State,
    Unique,
)
from errands.beat.payloads import PayloadPruner
from errands.beat.recorder import Recorder
from errands.broker.events import EventStream
from errands.core import clock
from errands.kits import storage
from errands.kits.storage.fake import MemoryStorage
from errands.ops.access import Person
from errands.ops.actions import Actions
from errands.ops.views import Ops
from errands.store import tables
from errands.store.engine import Database
from errands.testing import capture, inline
from processes import Worker, until

ROWS = [f"row {n:05}" for n in range(10_000)]  # 120 KB
ADMIN = Person("ann", frozenset({"admin"}))


def make_app(url: str, prefix: str, database: Database, folder: Path, **options: Any) -> Errands:
    settings = Settings(
        home=folder, broker_url=url, key_prefix=prefix, secret_keys=Keyring.new_key(), **options
    )
    app = Errands("payloads", settings=settings, queues=["work"], set_as_current=False)
    app.__dict__["database"] = database
    app.conf.task_default_queue = "work"

    @app.task(name="weigh", queue="work", offload=True)
    def weigh(course: int, rows: list[str], *, token: Secret[str] = "") -> int:
        assert token in ("", "open sesame")
        return len(rows)

    @app.task(name="plain", queue="work")
    def plain(rows: list[str]) -> int:
        return len(rows)

    return app


@pytest.fixture
def app(valkey_url: str, key_prefix: str, database: Database, tmp_path: Path) -> Errands:
    return make_app(valkey_url, key_prefix, database, tmp_path)


def kept(app: Errands) -> int:
    with app.database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(tables.payloads)) or 0


def messages(app: Errands) -> list[bytes]:
    entries: Any = app.valkey.xrange(f"{app.settings.key_prefix}q:work:normal")
    return [fields[b"m"] for _, fields in entries]


def run_all(app: Errands) -> None:
    """Run what waits as a worker would, in this process."""
    for message in messages(app):
        told = msgspec.json.decode(message)
        headers = told["headers"]
        args, kwargs, _ = msgspec.json.decode(told["body"])
        task = app.tasks[headers["task"]]
        try:
            task.apply(args, kwargs, task_id=headers["id"], headers=headers, throw=True)
        except Ignore:
            continue


def test_large_arguments_leave_the_message_and_small_ones_stay(app: Errands) -> None:
    run_id = app.tasks["weigh"].delay(7, ROWS).id
    (message,) = messages(app)
    assert len(message) < 4000
    assert kept(app) == 1
    live = app.live.get(run_id)
    assert live is not None
    assert live.facts["args"][0] == 7
    run_all(app)
    live = app.live.get(run_id)
    assert live is not None
    assert (live.state, live.facts["result"]) == (State.SUCCEEDED, 10_000)


def test_small_calls_are_messages_as_ever(app: Errands) -> None:
    app.tasks["weigh"].delay(7, ROWS[:10])
    assert b"row 00009" in messages(app)[0]
    assert kept(app) == 0


def test_every_way_of_sending(app: Errands) -> None:
    weigh = app.tasks["weigh"]
    weigh.apply_async((1,), {"rows": ROWS}, task_id="by-name", countdown=0)
    assert len(weigh.delay_many([(2, ROWS), (3, ROWS[:5]), {"course": 4, "rows": ROWS}])) == 3
    with app.database.session() as session:
        weigh.delay_on_commit(session, 5, ROWS)
        weigh.delay_many_on_commit(session, [(6, ROWS), (7, ["few"])])

    async def send() -> None:
        await weigh.adelay(8, ROWS)
        await weigh.adelay_many([(9, ROWS), (10, ["few"])])
        async with app.database.async_session() as session:
            weigh.delay_on_commit(session, 11, ROWS)
        await app.database.adispose()

    asyncio.run(send())
    assert kept(app) == 8
    assert max(len(message) for message in messages(app)) < 4000
    run_all(app)
    ids = [msgspec.json.decode(message)["headers"]["id"] for message in messages(app)]
    found = app.live.get_many(ids)
    assert [found[run_id].facts["result"] for run_id in ids] == [
        10_000, 10_000, 5, 10_000, 10_000, 10_000, 1, 10_000, 10_000, 1, 10_000,
    ]  # fmt: skip


def test_secrets_lie_sealed_in_what_is_kept(app: Errands) -> None:
    app.tasks["weigh"].delay(1, ROWS, token="open sesame")
    with app.database.reading() as connection:
        content = connection.scalar(select(tables.payloads.c.content))
    assert content is not None
    assert b"sesame" not in content + messages(app)[0]
    run_all(app)


def test_a_rolled_back_transaction_keeps_nothing(app: Errands) -> None:
    with pytest.raises(KeyError), app.database.session() as session:
        app.tasks["weigh"].delay_on_commit(session, 1, ROWS)
        session.flush()
        raise KeyError
    assert (kept(app), messages(app)) == (0, [])


def test_what_is_too_large_is_refused_with_advice(
    valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path
) -> None:
    app = make_app(valkey_url, key_prefix, sqlite_database, tmp_path, offload_max=100_000)
    with pytest.raises(PayloadTooLarge, match=r"over the limit of 65,536: store.*with offload=True"):
        app.tasks["plain"].delay(ROWS)
    with pytest.raises(
        PayloadTooLarge, match=r"120,00\d bytes, over the limit of 100,000: store the data and"
    ):
        app.tasks["weigh"].delay(1, ROWS)
    with pytest.raises(PayloadTooLarge, match=r"of\.somebody\.else: the arguments weigh"):
        app.send_task("of.somebody.else", [ROWS])
    with app.database.session() as session, pytest.raises(PayloadTooLarge):
        app.tasks["weigh"].delay_on_commit(session, 1, ROWS)
    with inline(app), pytest.raises(PayloadTooLarge):
        app.tasks["weigh"].delay(1, ROWS)
    assert (kept(app), messages(app)) == (0, [])


def test_inline_and_caught_calls_keep_their_arguments(
    valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path
) -> None:
    app = make_app(valkey_url, key_prefix, sqlite_database, tmp_path)
    with inline(app):
        assert app.tasks["weigh"].delay(1, ROWS).get() == 10_000
    with capture(app) as enqueued:
        app.tasks["weigh"].delay(1, ROWS)
        enqueued.assert_enqueued("weigh", 1, ROWS)
        with app.database.session() as session:
            app.tasks["weigh"].delay_on_commit(session, 2, ROWS)
        enqueued.assert_enqueued("weigh", 2, ROWS)
        assert [done.value for done in enqueued.drain()] == [10_000, 10_000]
    assert kept(app) == 0


def test_a_retry_and_a_retry_by_hand_read_it_again(app: Errands) -> None:
    tries: list[int] = []

    @app.task(name="twice", queue="work", offload=True)
    def twice(rows: list[str]) -> int:
        tries.append(len(rows))
        if len(tries) < 2:
            raise ConnectionError("not yet")
        return len(rows)

    run_id = twice.delay(ROWS).id
    with pytest.raises(ConnectionError):
        run_all(app)
    first = len(messages(app))
    Actions(app).retry(ADMIN, run_id)
    assert len(messages(app)) == first + 1
    assert len(messages(app)[-1]) < 4000
    run_all(app)
    assert tries == [10_000, 10_000]
    assert kept(app) == 1


def test_a_lost_payload_ends_the_run_with_a_dead_letter_and_is_not_tried_again(app: Errands) -> None:
    run_id = app.tasks["weigh"].delay(1, ROWS).id
    with app.database.writing() as connection:
        connection.execute(tables.payloads.delete())
    with pytest.raises(PayloadLost, match="are gone"):
        run_all(app)
    recorder = Recorder(EventStream(app.valkey, app.keys.events), app.database, name=app.keys.events)
    recorder.step()
    shown = Ops(app).run(ADMIN, run_id)
    assert (shown["state"], shown["error_type"]) == ("discarded", "PayloadLost")
    (letter,) = Ops(app).dead_letters(ADMIN)
    assert "kept apart from the message" in letter["reason"]
    from errands.core.errors import ActionRefused

    with pytest.raises(ActionRefused, match="are gone"):
        Actions(app).retry(ADMIN, run_id)


def test_a_payload_that_was_changed_is_not_run(app: Errands) -> None:
    app.tasks["weigh"].delay(1, ROWS)
    with app.database.writing() as connection:
        connection.execute(
            update(tables.payloads).values(content=b'{"task":"weigh","args":[[]],"kwargs":{}}')
        )
    with pytest.raises(PayloadLost, match="not what was kept"):
        run_all(app)


def test_the_page_of_the_run_shows_a_note_and_the_size(app: Errands) -> None:
    run_id = app.tasks["weigh"].apply_async((7,), {"rows": ROWS}).id
    shown = Ops(app).run(ADMIN, run_id)
    assert shown["args"] == [7]
    assert shown["kwargs"].keys() == {"rows"}
    assert shown["kwargs"]["rows"].startswith("offloaded: 1")
    assert shown["payload_bytes"] > 100_000
    assert Ops(app).run(ADMIN, app.tasks["plain"].delay([]).id)["payload_bytes"] is None


def test_a_store_that_does_not_answer_is_said_to_the_sender_and_waited_for_by_the_worker(
    app: Errands, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        async def put(self, key: str, content: bytes) -> None:
            raise OSError("no route")

        async def get(self, key: str) -> bytes | None:
            raise OSError("no route")

        async def delete(self, key: str) -> None:
            raise OSError("no route")

    memory = MemoryStorage()
    app.offload_to(storage.payloads(memory))
    run_id = app.tasks["weigh"].delay(1, ROWS).id
    app.offload_to(Away())
    with pytest.raises(PayloadUnavailable, match=r"was not sent: its arguments \(1.*no route"):
        app.tasks["weigh"].delay(1, ROWS)
    assert len(messages(app)) == 1
    from celery.exceptions import Retry

    with pytest.raises((Retry, RuntimeError)):
        run_all(app)
    live = app.live.get(run_id)
    assert live is not None
    assert live.state is State.RETRYING
    assert "its arguments cannot be read: OSError: no route" in str(live.facts.get("note"))


def test_a_storage_keeps_the_content(app: Errands) -> None:
    memory = MemoryStorage()
    app.offload_to(storage.payloads(memory))
    app.tasks["weigh"].delay(1, ROWS)
    assert len(memory.files) == 1
    with app.database.reading() as connection:
        assert connection.scalar(select(tables.payloads.c.content)) is None
    with app.database.session() as session:  # with the transaction, and so in its database
        app.tasks["weigh"].delay_on_commit(session, 2, ROWS)
    assert len(memory.files) == 1
    run_all(app)
    app.valkey.flushdb()
    with clock.use(clock.FakeClock(clock.now() + timedelta(days=2))):
        with app.database.writing() as connection:
            connection.execute(tables.outbox.delete())
        assert PayloadPruner(app, app.database).step() == 2
    assert (memory.files, kept(app)) == ({}, 0)


def test_payloads_are_deleted_when_nobody_can_send_their_run_again(app: Errands) -> None:
    weigh = app.tasks["weigh"]
    known, ledger, letter = weigh.delay(1, ROWS).id, weigh.delay(2, ROWS).id, weigh.delay(3, ROWS).id
    gone = weigh.delay(4, ROWS).id
    with app.database.session() as session:
        outbox = weigh.delay_on_commit(session, 5, ROWS)
    app.valkey.delete(*(app.keys.run(run_id) for run_id in (ledger, letter, gone, outbox)))
    with app.database.writing() as connection:
        now = clock.now()
        connection.execute(
            tables.runs.insert().values(
                id=ledger, state="failed", attempt=1, created_at=now, updated_at=now, finished_at=now
            )
        )
        connection.execute(tables.dead_letters.insert().values(id="1-0", run_id=letter, reason="r", at=now))

    def left() -> set[str]:
        with app.database.reading() as connection:
            return set(connection.scalars(select(tables.payloads.c.run_id)))

    pruner = PayloadPruner(app, app.database, batch=2)
    assert pruner.step() == 0  # younger than a day
    with clock.use(clock.FakeClock(clock.now() + timedelta(days=2))):
        assert pruner.step() == 1
        assert left() == {known, ledger, letter, outbox}
        with app.database.writing() as connection:
            connection.execute(update(tables.dead_letters).values(replayed_at=clock.now()))
            connection.execute(tables.runs.delete())
        assert pruner.step() == 2
        assert left() == {known, outbox}
        assert PayloadPruner(app, app.database, stopped=lambda: True).step() == 0


@pytest.mark.parametrize("way", ["delay", "asyncio", "many", "commit", "celery"])
def test_a_replaced_payload_belongs_to_the_run_that_took_it(app: Errands, way: str) -> None:
    """Else it is deleted after a day, as that of a call that was never sent, and outlives a person."""

    @app.task(name="index", queue="work", offload=True, unique=Unique(by="page", on_conflict="replace"))
    def index(page: int, rows: list[str]) -> int:
        return len(rows)

    first = index.delay(1, ROWS).id
    if way == "delay":
        second = index.delay(1, ROWS[1:]).id
    elif way == "asyncio":
        second = asyncio.run(index.aapply_async((1, ROWS[1:]))).id
    elif way == "many":
        (second,) = index.delay_many([(1, ROWS[1:])])
    elif way == "commit":
        with app.database.session() as session:
            index.delay_on_commit(session, 1, ROWS[1:])
        second = first
    else:
        app.conf.task_compression = "zlib"  # Celery has to send it
        second = index.delay(1, ROWS[1:]).id
    assert second == first
    with app.database.reading() as connection:
        assert list(connection.scalars(select(tables.payloads.c.run_id))) == [first, first]
    with clock.use(clock.FakeClock(clock.now() + timedelta(days=2))):
        assert PayloadPruner(app, app.database).step() == 0


@pytest.fixture
def worker(valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path) -> Iterator[Worker]:
    environment = {
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_KEY_PREFIX": key_prefix,
        "ERRANDS_DATABASE_URL": sqlite_database.url.render_as_string(hide_password=False),
        "ERRANDS_HOME": str(tmp_path),
        "SAMPLE_EFFECTS": str(tmp_path / "effects"),
    }
    command = (
        "-m", "errands", "worker", "--app", "durable_app:app", "--pool", "asyncio", "-Q", "work", "-c", "10",
    )  # fmt: skip
    started = Worker(environment, tmp_path / "worker.log", command=command)
    yield started.wait_until_ready()
    started.kill()


def test_a_worker_of_another_process_reads_them(
    worker: Worker, valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path
) -> None:
    """On its event loop, side by side."""
    app = make_app(valkey_url, key_prefix, sqlite_database, tmp_path)
    ids = app.tasks["weigh"].delay_many((n, ROWS) for n in range(30))

    def results() -> list[Any]:
        found = app.live.get_many(ids)
        return [found[run_id].facts.get("result") for run_id in ids]

    until(lambda: results() == [10_000] * 30, 60, "all of them were weighed")
