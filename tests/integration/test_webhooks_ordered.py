"""An endpoint that wants its events one after the other."""

from __future__ import annotations

import runpy
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from errands import Database, Errands, InvalidArguments, Keyring, Retry, Run, Settings, Snooze, State
from errands.core import clock
from errands.kits import webhooks
from errands.kits.webhooks.delivery import Options, Sending
from errands.kits.webhooks.line import Waiting
from errands.kits.webhooks.ordered import deliver_line
from errands.kits.webhooks.tables import line
from errands.testing import capture
from processes import SAMPLE, Worker, until
from web import Web, response, web

URL = "https://one.example/hook"


@pytest.fixture
def sender() -> webhooks.FakeSender:
    return webhooks.FakeSender()


@pytest.fixture
async def app(database: Database, tmp_path: Path, sender: webhooks.FakeSender) -> AsyncIterator[Errands]:
    """Everything runs in the caller, and the time that it waits passes at once."""
    url = database.url.render_as_string(hide_password=False)
    settings = Settings(home=tmp_path, inline=True, secret_keys=Keyring.new_key(), database_url=url)
    app = Errands("test", settings=settings)
    app.use(webhooks.kit(lambda: sender, schedule=Retry(2, first=30)))
    with clock.use(clock.FakeClock()):
        yield app
    await app.database.adispose()
    app.database.dispose()


@pytest.fixture
def store(app: Errands) -> webhooks.WebhookStore:
    return app.resources.instance(webhooks.WebhookStore)


async def tell(app: Errands, number: int) -> Any:
    return await app.tasks["dispatch_webhooks_batch"].adelay("a.b", {"number": number})


def numbers(sender: webhooks.FakeSender) -> list[int]:
    return [sent.json["data"]["number"] for sent in sender.sent]


async def waiting(store: webhooks.WebhookStore) -> int:
    async with store._database.async_reading() as connection:
        return await connection.scalar(select(func.count()).select_from(line)) or 0


async def fill(store: webhooks.WebhookStore, endpoint: webhooks.Endpoint, count: int) -> None:
    """Let webhooks wait, brought in reverse order."""
    for number in reversed(range(count)):
        body = f'{{"type":"a.b","data":{{"number":{number}}}}}'
        await store.line.add(
            Waiting(f"msg_{number:03}-{endpoint.id}", endpoint.id, f"{number:03}", "a.b", body)
        )


async def deliver(app: Errands, store: webhooks.WebhookStore, endpoint_id: str, run_id: str = "r") -> Any:
    sender: Any = app.resources.instance(webhooks.Sender)  # type: ignore[type-abstract]
    sending = Sending(store, sender, Options(Retry(2, first=30, jitter=0)))
    return await deliver_line(endpoint_id, run=Run(run_id, "deliver_webhooks_in_order"), sending=sending)


async def test_what_fails_is_tried_again_before_the_next_one_goes(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, secret = await store.add(URL, ordered=True)
    sender.answer_with(503, times=2)
    for number in range(3):
        await tell(app, number)
    assert numbers(sender) == [0, 0, 0, 1, 2]
    assert len({sent.headers["webhook-id"] for sent in sender.sent}) == 3
    for sent in sender.sent[:3]:
        assert sent.body == sender.sent[0].body
    webhooks.verify(sender.sent[-1].headers, sender.sent[-1].body, secret)
    attempts = await store.deliveries(endpoint.id)
    first = [d for d in attempts if d.message_id == sender.sent[0].headers["webhook-id"]]
    assert [(d.attempt, d.status_code) for d in first] == [(3, 200), (2, 503), (1, 503)]
    assert first[2].next_try_at is not None
    assert await waiting(store) == 0


async def test_what_is_given_up_lets_the_next_one_go(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    await store.add(URL, ordered=True)
    sender.answer_with(503, times=3)
    sender.answer_with(400)
    for number in range(3):
        await tell(app, number)
    assert numbers(sender) == [0, 0, 0, 1, 2]


async def test_the_order_is_that_of_the_runs_that_brought_them(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, _ = await store.add(URL, ordered=True)
    await fill(store, endpoint, 5)
    assert await deliver(app, store, endpoint.id) == {"delivered": 5, "given_up": 0}
    assert numbers(sender) == [0, 1, 2, 3, 4]


async def test_a_batch_that_is_begun_again_brings_nothing_twice(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, _ = await store.add(URL, ordered=True)
    body = Waiting("msg_1", endpoint.id, "1", "a.b", '{"data":{"number":1}}')
    await store.line.add(body)
    await store.line.add(body)
    assert await waiting(store) == 1
    assert await deliver(app, store, endpoint.id) == {"delivered": 1, "given_up": 0}


async def test_what_was_delivered_is_not_brought_again(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    await store.add(URL, ordered=True)
    batch = app.tasks["dispatch_webhooks_batch"]
    result = await batch.adelay("a.b", {"number": 1})
    # What a worker does when another died over the same run.
    await batch("a.b", {"number": 1}, run=Run(result.id, batch.name), store=store)
    assert numbers(sender) == [1]
    sender.answer_with(400)
    result = await batch.adelay("a.b", {"number": 2})
    await batch("a.b", {"number": 2}, run=Run(result.id, batch.name), store=store)
    assert numbers(sender) == [1, 2]


async def test_what_is_told_in_a_transaction_is_in_line_with_its_commit(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    """The runs that bring events may overtake each other; the events do not."""
    endpoint, _ = await store.add(URL, ["a.*"], ordered=True)
    await store.add("https://two.example/", ["a.*"])
    actions = app.resources.instance(webhooks.Webhooks)
    with capture(app):  # nothing runs yet
        for number in range(3):
            async with app.database.async_session() as session:
                await actions.tell(session, "a.b", {"number": number})
        async with app.database.async_session() as session:
            await actions.tell(session, "b.c", {"number": 9})
        with pytest.raises(RuntimeError):
            async with app.database.async_session() as session:
                await actions.tell(session, "a.b", {"number": 10})
                raise RuntimeError
        with pytest.raises(InvalidArguments):
            async with app.database.async_session() as session:
                await actions.tell(session, "two words", {})
        assert await waiting(store) == 3
        assert await deliver(app, store, endpoint.id) == {"delivered": 3, "given_up": 0}
        assert numbers(sender) == [0, 1, 2]


async def test_telling_wakes_the_line_and_tells_the_others(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    await store.add(URL, ordered=True)
    await store.add("https://two.example/")
    actions = app.resources.instance(webhooks.Webhooks)
    async with app.database.async_session() as session:
        await actions.tell(session, "a.b", {"number": 1}, owner="7")
    assert sorted(sent.url for sent in sender.sent) == [URL, "https://two.example/"]
    assert len({sent.body for sent in sender.sent}) == 1
    assert await waiting(store) == 0


async def test_one_address_by_name_waits_its_turn_too(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    await store.add(URL, ordered=True)
    result = await app.tasks["dispatch_webhook"].adelay("a.b", {"number": 1}, URL)
    assert result.result["reason"] == "it waits for its turn"
    assert numbers(sender) == [1]
    assert sender.sent[0].headers["webhook-id"] == f"msg_{result.id}"


async def test_another_run_waits_until_the_next_try_is_due(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, _ = await store.add(URL, ordered=True)
    await fill(store, endpoint, 2)
    sender.answer_with(503)
    with pytest.raises(Snooze) as snoozed:
        await deliver(app, store, endpoint.id, "one")
    assert snoozed.value.seconds == 30
    clock.pass_time(10)
    with pytest.raises(Snooze) as snoozed:
        await deliver(app, store, endpoint.id, "another")
    assert snoozed.value.seconds == 20
    assert numbers(sender) == [0]
    clock.pass_time(20)
    assert await deliver(app, store, endpoint.id, "another") == {"delivered": 2, "given_up": 0}
    assert numbers(sender) == [0, 0, 1]


async def test_what_waits_for_a_disabled_endpoint_is_given_up_and_can_be_replayed(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, _ = await store.add(URL, ordered=True)
    await fill(store, endpoint, 3)
    sender.answer_with(410)
    assert await deliver(app, store, endpoint.id) == {"delivered": 0, "given_up": 3}
    assert numbers(sender) == [0]
    kept = await store.deliveries(endpoint.id)
    assert [d.status_code for d in kept].count(410) == 1
    [last] = [d for d in kept if d.message_id == f"msg_002-{endpoint.id}"]
    assert "not sent: the endpoint is disabled: the receiver answered 410" in str(last.error)
    await store.enable(endpoint.id)
    await app.resources.instance(webhooks.Webhooks).replay(last.id)
    assert numbers(sender) == [0, 2]
    assert sender.sent[1].headers["webhook-id"] == last.message_id


async def test_a_line_that_nobody_is_at_is_woken(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, _ = await store.add(URL, ordered=True)
    await store.add("https://two.example/", ordered=True)
    await fill(store, endpoint, 3)
    await app.tasks["prune_webhook_deliveries"].adelay()
    assert numbers(sender) == [0, 1, 2]


async def test_the_line_goes_with_its_endpoint(
    app: Errands, store: webhooks.WebhookStore, sender: webhooks.FakeSender
) -> None:
    endpoint, _ = await store.add(URL, ordered=True)
    await fill(store, endpoint, 2)
    await store.remove(endpoint.id)
    assert await waiting(store) == 0
    await fill(store, endpoint, 1)
    assert await waiting(store) == 0
    assert await deliver(app, store, endpoint.id) == {"delivered": 0, "given_up": 0}


# -- with workers


@pytest.fixture
def receiver() -> Iterator[Web]:
    with web() as receiver:
        yield receiver


@pytest.fixture
def environment(valkey_url: str, tmp_path: Path, receiver: Web) -> dict[str, str]:
    return {
        "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_WEBHOOK_ALLOW": f"127.0.0.1:{receiver.port}",
    }  # fmt: skip


@pytest.mark.parametrize("pool", ["asyncio", "prefork"])
async def test_order_holds_over_workers_of_which_one_is_killed_and_keeps_no_other_endpoint_waiting(
    environment: dict[str, str], receiver: Web, tmp_path: Path, pool: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "webhooks_app.py"))["app"]
    app.finalize()
    app.database.upgrade()
    store = app.resources.instance(webhooks.WebhookStore)
    slow, _ = await store.add(receiver.url("/slow"), ordered=True)
    quick, _ = await store.add(receiver.url("/quick"), ordered=True)
    await fill(store, slow, 12)
    await fill(store, quick, 12)
    asked = 0

    async def moody(writer: Any) -> None:
        nonlocal asked
        asked += 1
        fails = receiver.paths.count("/quick") < 12 or asked % 3 == 0
        writer.write(response(status=503 if fails else 200))
        await writer.drain()

    receiver.pages |= {"/slow": moody, "/quick": response(b"ok")}
    command = ("-m", "errands", "worker", "--app", "webhooks_app:app", "--pool", pool, "--concurrency", "4")
    workers = [Worker(environment, tmp_path / f"w{n}.log", command=command) for n in range(2)]
    try:
        for worker in workers:
            worker.wait_until_ready()
        ordered = app.tasks["deliver_webhooks_in_order"]
        runs = [
            # More runs than the rule would let there be: they must not be at it at the same time.
            ordered.apply_async((endpoint.id,), task_id=str(uuid.uuid4()), unique=False).id
            for endpoint in (slow, quick)
            for _ in range(3)
        ]
        # While the first in one line fails again and again, the other line is delivered.
        until(lambda: receiver.paths.count("/quick") >= 12 and asked, what="the other endpoint's webhooks")
        so_far = asked
        until(lambda: asked >= so_far + 5, what="the line is under way")
        workers[0].kill()
        until(lambda: _ended(app, runs), 100, "all runs end")
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.kill()
    for endpoint, path in ((slow, "/slow"), (quick, "/quick")):
        ids = [headers["webhook-id"] for place, headers in receiver.asked if place == path]
        assert [id for id, _ in groupby(ids)] == [f"msg_{number:03}-{endpoint.id}" for number in range(12)]
    await app.database.adispose()
    app.database.dispose()
    app.close()


def _ended(app: Errands, ids: list[str]) -> bool:
    found = [app.live.get(run_id) for run_id in ids]
    return all(run is not None and run.state is State.SUCCEEDED for run in found)
