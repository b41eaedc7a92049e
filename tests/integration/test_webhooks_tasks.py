"""The webhook tasks on an app, all the way, in inline mode."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from errands import ConfigurationError, Errands, InvalidArguments, Keyring, Run, Settings
from errands.core import clock
from errands.kits import webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def make(tmp_path, sender, **settings):
    app = Errands(
        "test",
        settings=Settings(home=tmp_path, inline=True, secret_keys=Keyring.new_key(), **settings),
    )
    app.use(webhooks.kit(lambda: sender))
    app.database.upgrade()
    return app


@pytest.fixture
def sender():
    return webhooks.FakeSender()


@pytest.fixture
def app(tmp_path, sender):
    return make(tmp_path, sender)


def add(app, *urls, events=("*",)):
    """Register addresses from code without a loop, as an endpoint would from within one."""

    async def adding():
        store = app.resources.instance(webhooks.WebhookStore)
        made = [await store.add(url, events) for url in urls]
        await app.database.adispose()
        return made

    return asyncio.run(adding())


def dispatch(app, *args, **kwargs):
    return app.tasks["dispatch_webhook"].delay(*args, **kwargs)


def test_with_nothing_registered_there_is_nothing_to_do(app, sender):
    result = dispatch(app, "user.registered", {"user_id": 1})
    assert result.get() == {"delivered": False, "reason": "no address registered"}
    assert sender.sent == []


def test_a_webhook_to_the_configured_address(tmp_path, sender):
    app = make(tmp_path, sender, webhook_url="https://receiver.example/hook", webhook_secret=SECRET)
    result = dispatch(app, "user.registered", {"user_id": 1})
    assert result.get()["delivered"] is True
    (sent,) = sender.sent
    assert sent.url == "https://receiver.example/hook"
    assert webhooks.verify(sent.headers, sent.body, SECRET) == f"msg_{result.id}"
    assert sent.headers["X-Webhook-Event"] == "user.registered"
    assert sent.json["data"] == {"user_id": 1}


def test_each_try_has_the_same_id_and_body_and_its_own_time(tmp_path, sender):
    sender.answer_with(503)
    sender.answer_with(webhooks.WebhookFailed("no answer"))
    app = make(tmp_path, sender, webhook_url="https://receiver.example/hook", webhook_secret=SECRET)
    result = dispatch(app, "user.registered", {"user_id": 1})
    assert result.get()["delivered"] is True
    assert len({(sent.body, sent.headers["webhook-id"]) for sent in sender.sent}) == 1
    assert len(sender.sent) == 3
    # The time in the body is that of the request, told by the run's id.
    asked = datetime.fromisoformat(sender.sent[0].json["timestamp"])
    assert abs((asked - clock.now()).total_seconds()) < 60


def test_what_the_receiver_refuses_is_not_tried_again(tmp_path, sender):
    sender.answer_with(400)
    app = make(tmp_path, sender, webhook_url="https://receiver.example/hook", webhook_secret=SECRET)
    with pytest.raises(webhooks.WebhookRefused, match="400"):
        dispatch(app, "user.registered", {}).get()
    assert len(sender.sent) == 1


def test_tries_end(tmp_path, sender):
    sender.answer_with(500, times=9)
    app = make(tmp_path, sender, webhook_url="https://receiver.example/hook", webhook_secret=SECRET)
    with pytest.raises(webhooks.WebhookFailed, match="500"):
        dispatch(app, "user.registered", {}).get()
    assert len(sender.sent) == 4


def test_one_registered_address_needs_no_naming_and_two_do(app, sender):
    add(app, "https://one.example/", events=["user.*"])
    assert dispatch(app, "user.registered", {}).get()["delivered"]
    assert not dispatch(app, "course.completed", {}).get()["delivered"]
    add(app, "https://two.example/", events=["user.*"])
    with pytest.raises(Exception, match="dispatch_webhooks_batch"):
        dispatch(app, "user.registered", {}).get()
    assert [sent.url for sent in sender.sent] == ["https://one.example/"]


def test_a_batch_is_one_webhook_for_each_address_also_when_it_comes_twice(tmp_path, sender):
    app = make(tmp_path, sender, webhook_url="https://configured.example/", webhook_secret=SECRET)
    made = add(app, "https://one.example/", "https://two.example/", events=["user.*"])
    add(app, "https://other.example/", events=["course.*"])
    batch = app.tasks["dispatch_webhooks_batch"]
    first = batch.delay("user.registered", {"user_id": 1})
    assert first.get()["dispatched"] == 3
    assert sorted(sent.url for sent in sender.sent) == [
        "https://configured.example/",
        "https://one.example/",
        "https://two.example/",
    ]
    assert len({sent.body for sent in sender.sent}) == 1
    for endpoint, secret in made:
        (sent,) = (sent for sent in sender.sent if sent.url == endpoint.url)
        webhooks.verify(sent.headers, sent.body, secret)


def test_a_batch_that_is_begun_again_sends_nothing_twice(app, sender):
    add(app, "https://one.example/")
    batch = app.tasks["dispatch_webhooks_batch"]
    first = batch.delay("user.registered", {"user_id": 1})

    async def again(run_id):
        # What a worker does when another died over the same run.
        store = app.resources.instance(webhooks.WebhookStore)
        await batch("user.registered", {"user_id": 1}, run=Run(run_id, batch.name), store=store)
        await app.database.adispose()

    asyncio.run(again(first.id))
    assert len(sender.sent) == 1
    asyncio.run(again(app.new_id()))
    assert len(sender.sent) == 2


@pytest.mark.parametrize("event", ["", "two words", "x\r\nEvil: 1", "ü.b", "a" * 101])
def test_an_event_that_is_no_word_is_refused_in_the_caller(app, event):
    with pytest.raises(InvalidArguments):
        dispatch(app, event, {})


def test_the_payload_must_be_an_object(app):
    with pytest.raises(InvalidArguments):
        dispatch(app, "user.registered", [1, 2])


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"webhook_secret": "short"}, "WEBHOOK_SECRET"),
        ({"webhook_allow": "localhost"}, "ERRANDS_WEBHOOK_ALLOW"),
    ],
)
def test_a_wrong_setting_stops_the_start(tmp_path, sender, settings, name):
    with pytest.raises(ConfigurationError, match=name):
        make(tmp_path, sender, **settings)


def test_an_unknown_schedule_stops_the_start():
    with pytest.raises(ConfigurationError, match="weekly"):
        webhooks.kit(schedule="weekly")


def test_the_timestamp_is_utc(tmp_path, sender):
    app = make(tmp_path, sender, webhook_url="https://receiver.example/hook", webhook_secret=SECRET)
    dispatch(app, "user.registered", {}).get()
    assert datetime.fromisoformat(json.loads(sender.sent[0].body)["timestamp"]).tzinfo == UTC
