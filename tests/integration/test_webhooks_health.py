"""Endpoints that fail are disabled and somebody is told; people ping and replay."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from errands import ConfigurationError, Errands, Keyring, Retry, Run, Settings
from errands.core import clock
from errands.kits import webhooks
from errands.kits.webhooks.records import LEAST_FAILURES
from errands.kits.webhooks.tables import deliveries
from errands.worker.loop import process_loop

URL = "https://one.example/hook"
DAY = 86_400


@pytest.fixture
def sender():
    return webhooks.FakeSender()


@pytest.fixture
def notices():
    return []


@pytest.fixture
def make(database, tmp_path, sender, notices):
    """An app on the test's database, in which everything runs in the caller."""
    made = []

    def make(**options):
        url = database.url.render_as_string(hide_password=False)
        app = Errands(
            "test",
            settings=Settings(home=tmp_path, inline=True, secret_keys=Keyring.new_key(), database_url=url),
        )
        options = {"on_disabled": "tell_admins", "schedule": Retry(0), **options}
        app.use(webhooks.kit(lambda: sender, **options))

        @app.task(name="tell_admins")
        def tell_admins(endpoint_id: str, url: str, reason: str) -> None:
            notices.append((endpoint_id, url, reason))

        made.append(app)
        return app

    yield make
    for app in made:
        process_loop().run(app.database.adispose())
        app.database.dispose()


@pytest.fixture
async def app(make):
    app = make()
    yield app
    await app.database.adispose()


@pytest.fixture
def store(app):
    return app.resources.instance(webhooks.WebhookStore)


@pytest.fixture
def actions(app):
    return app.resources.instance(webhooks.Webhooks)


def attempt(endpoint, status, **more):
    return webhooks.Delivery(
        run_id="r", event="a.b", url=endpoint.url, attempt=1, status_code=status, error=None, duration_ms=1,
        at=clock.now(), endpoint_id=endpoint.id, delivered_at=clock.now() if status == 200 else None, **more,
    )  # fmt: skip


async def dispatch(app, event="user.registered"):
    return await app.tasks["dispatch_webhook"].adelay(event, {"user_id": 1}, URL)


# -- disabling


async def test_an_endpoint_where_nothing_arrives_for_five_days_is_disabled_and_admins_are_told_once(
    app, store, sender, notices
):
    with clock.use(clock.FakeClock()) as now:
        endpoint, _ = await store.add(URL)
        sender.answer_with(500, times=1000)
        since = clock.now()
        for _ in range(11):
            await dispatch(app)
            now.advance(DAY / 2 - 1)
        assert (await store.get(endpoint.id)).active
        assert (await store.get(endpoint.id)).failing_since == since
        assert notices == []
        now.advance(DAY / 2)
        await dispatch(app)
        disabled = await store.get(endpoint.id)
        assert not disabled.active
        assert (
            disabled.disabled_reason
            == f"nothing was delivered since {since:%Y-%m-%d %H:%M} UTC, in 12 attempts"
        )
        assert notices == [(endpoint.id, URL, disabled.disabled_reason)]
        for _ in range(3):
            await store.record(attempt(endpoint, 500))
        assert len(notices) == 1
        before = len(sender.sent)
        result = await dispatch(app)
        assert "disabled" in str(result.result)
        assert len(sender.sent) == before


async def test_one_success_in_between_begins_anew(app, store, sender, notices):
    with clock.use(clock.FakeClock()) as now:
        endpoint, _ = await store.add(URL)
        for day in range(20):
            sender.answer_with(200 if day == 10 else 500, times=1)
            await dispatch(app)
            assert (await store.get(endpoint.id)).failing_since is None or day != 10
            if day < 9:  # five days are over, and ten failures have not come together
                assert (await store.get(endpoint.id)).active
            if day == 9:
                assert not (await store.get(endpoint.id)).active
                await store.enable(endpoint.id)
            now.advance(DAY)
        assert len(notices) == 1
        assert (await store.get(endpoint.id)).active


async def test_two_bad_moments_a_week_apart_are_no_week_of_failure(app, store, sender):
    with clock.use(clock.FakeClock()) as now:
        endpoint, _ = await store.add(URL)
        sender.answer_with(500, times=2)
        await dispatch(app)
        now.advance(7 * DAY)
        await dispatch(app)
        assert (await store.get(endpoint.id)).active


async def test_many_failures_in_a_short_time_are_no_reason(store):
    with clock.use(clock.FakeClock()) as now:
        endpoint, _ = await store.add(URL)
        for _ in range(50):
            await store.record(attempt(endpoint, None))
        now.advance(5 * DAY - 1)
        await store.record(attempt(endpoint, 404))
        assert (await store.get(endpoint.id)).active
        now.advance(1)
        await store.record(attempt(endpoint, 404))
        assert not (await store.get(endpoint.id)).active


async def test_what_is_enabled_again_has_its_five_days_anew(store, notices):
    with clock.use(clock.FakeClock()) as now:
        endpoint, _ = await store.add(URL)
        for _ in range(2):
            for _ in range(LEAST_FAILURES):
                await store.record(attempt(endpoint, 500))
            now.advance(5 * DAY)
            await store.record(attempt(endpoint, 500))
            assert not (await store.get(endpoint.id)).active
            await store.enable(endpoint.id)
            assert (await store.get(endpoint.id)).failing_since is None
            await store.record(attempt(endpoint, 500))
            assert (await store.get(endpoint.id)).active
            await store.record(attempt(endpoint, 200))
        assert len(notices) == 2


async def test_a_receiver_that_is_gone_is_disabled_at_once_and_told_of(app, store, sender, notices):
    endpoint, _ = await store.add(URL)
    sender.answer_with(410)
    await dispatch(app)
    assert (await store.get(endpoint.id)).disabled_reason == "the receiver answered 410 Gone"
    assert notices == [(endpoint.id, URL, "the receiver answered 410 Gone")]


async def test_an_address_that_leads_inward_by_now_is_not_tried_again_and_counts_as_a_failure(
    make, sender, database
):
    app = make(schedule=Retry(3))
    store = app.resources.instance(webhooks.WebhookStore)
    endpoint, _ = await store.add(URL)
    sender.answer_with(webhooks.AddressRefused("one.example stands for 10.0.0.1, which is not public"))
    result = await dispatch(app)
    assert isinstance(result.result, webhooks.AddressRefused)
    [delivery] = await store.deliveries(endpoint.id)
    assert (delivery.status_code, delivery.next_try_at) == (None, None)
    assert "10.0.0.1" in delivery.error
    assert (await store.get(endpoint.id)).failing_since == delivery.at
    await database.adispose()


async def test_who_disables_by_hand_needs_no_notice(store, notices):
    endpoint, _ = await store.add(URL)
    await store.disable(endpoint.id, "they asked for it")
    assert notices == []


async def test_the_time_is_the_apps_to_choose(make, database):
    for after, days, active in ((None, 100, True), (timedelta(days=1), 2, False)):
        store = make(disable_after=after).resources.instance(webhooks.WebhookStore)
        with clock.use(clock.FakeClock()) as now:
            endpoint, _ = await store.add(f"https://{days}.example/")
            for _ in range(LEAST_FAILURES):
                await store.record(attempt(endpoint, 500))
            now.advance(days * DAY)
            await store.record(attempt(endpoint, 500))
            assert (await store.get(endpoint.id)).active is active
    await database.adispose()


async def test_an_attempt_at_an_endpoint_that_was_removed_meanwhile_is_kept(store, database):
    endpoint, _ = await store.add(URL)
    await store.remove(endpoint.id)
    for status in (200, 500, 410):
        await store.record(attempt(endpoint, status, message_id="m"), "{}")
    async with database.async_reading() as connection:
        kept = await connection.execute(select(deliveries.c.endpoint_id, deliveries.c.status_code))
        assert sorted(kept.all()) == [(None, 200), (None, 410), (None, 500)]


@pytest.mark.parametrize("after", [timedelta(0), timedelta(days=-1)])
def test_a_time_that_is_none_stops_the_start(after):
    with pytest.raises(ConfigurationError, match="disable_after"):
        webhooks.kit(disable_after=after)


async def test_a_notice_that_no_task_takes_is_an_error_and_disables_nothing(make):
    store = make(on_disabled="nobody").resources.instance(webhooks.WebhookStore)
    endpoint, _ = await store.add(URL)
    with pytest.raises(ConfigurationError, match="'nobody': there is no such task"):
        await store.record(attempt(endpoint, 410))
    assert (await store.get(endpoint.id)).active


# -- replay


async def test_a_replay_has_the_same_id_and_bytes_and_its_own_time(app, store, actions, sender):
    with clock.use(clock.FakeClock()) as now:
        endpoint, secret = await store.add(URL)
        sender.answer_with(400)
        first = await dispatch(app)
        [failed] = await store.deliveries(endpoint.id)
        now.advance(3600)
        run_id = await actions.replay(failed.id, owner="7")
        assert run_id != first.id
        before, after = sender.sent
        assert after.body == before.body
        assert after.headers["webhook-id"] == before.headers["webhook-id"] == f"msg_{first.id}"
        assert int(after.headers["webhook-timestamp"]) == int(before.headers["webhook-timestamp"]) + 3600
        assert webhooks.verify(after.headers, after.body, secret) == f"msg_{first.id}"
        again, _ = await store.deliveries(endpoint.id)
        assert (again.run_id, again.message_id, again.status_code) == (run_id, failed.message_id, 200)
        # A replay can be replayed, and what arrived too.
        await actions.replay(again.id)
        assert sender.sent[2].body == before.body


async def test_a_replay_is_signed_with_the_secrets_of_now(app, store, actions, sender):
    endpoint, old = await store.add(URL)
    await dispatch(app)
    new = await store.rotate_secret(endpoint.id, previous_for=timedelta(0))
    [delivery] = await store.deliveries(endpoint.id)
    await actions.replay(delivery.id)
    webhooks.verify(sender.sent[1].headers, sender.sent[1].body, new)
    with pytest.raises(webhooks.InvalidSignature):
        webhooks.verify(sender.sent[1].headers, sender.sent[1].body, old)


async def test_a_body_is_kept_once_for_a_message(make, database, sender):
    app = make(schedule=Retry(3))
    store = app.resources.instance(webhooks.WebhookStore)
    endpoint, _ = await store.add(URL)
    sender.answer_with(500, times=2)
    with clock.use(clock.FakeClock()):
        await dispatch(app)
    attempts = await store.deliveries(endpoint.id)
    assert [delivery.attempt for delivery in attempts] == [3, 2, 1]
    async with database.async_reading() as connection:
        assert await connection.scalar(select(func.count(deliveries.c.body))) == 1
    assert {await store.body(delivery) for delivery in attempts} == {sender.sent[0].body}


async def test_what_is_not_on_record_cannot_be_replayed(store, actions):
    endpoint, _ = await store.add(URL)
    with pytest.raises(webhooks.UnknownDelivery, match="'x'"):
        await actions.replay("x")
    await store.record(attempt(endpoint, 500))  # as an older version kept it
    [old] = await store.deliveries(endpoint.id)
    with pytest.raises(webhooks.UnknownDelivery, match="not on record"):
        await actions.replay(old.id)


async def test_nothing_is_replayed_to_a_disabled_endpoint(app, store, actions, sender):
    endpoint, _ = await store.add(URL)
    await dispatch(app)
    await store.disable(endpoint.id, "enough")
    [delivery] = await store.deliveries(endpoint.id)
    await actions.replay(delivery.id)
    assert len(sender.sent) == 1


async def test_what_was_sent_of_a_person_who_is_erased_is_forgotten(app, store):
    endpoint, _ = await store.add(URL)
    result = await dispatch(app)
    [delivery] = await store.deliveries(endpoint.id)
    [erase] = app.erasers
    assert erase("7", ["another", result.id]) == 1
    with pytest.raises(webhooks.UnknownDelivery):
        await store.body(delivery)
    assert erase("7", [result.id]) == 0
    assert len(await store.deliveries(endpoint.id)) == 1


# -- ping


async def test_a_ping_tells_what_came_of_it(store, actions, sender):
    endpoint, secret = await store.add(URL, ["user.*"])
    sender.answer_with(webhooks.Reply(503, excerpt="closed"))
    failed = await actions.ping(endpoint.id)
    assert (failed.status_code, failed.delivered_at, failed.next_try_at) == (503, None, None)
    assert failed.error == "the receiver answered 503: closed"
    worked = await actions.ping(endpoint.id)
    assert worked.status_code == 200
    assert worked.delivered_at
    sent = sender.sent[1]
    webhooks.verify(sent.headers, sent.body, secret)
    assert sent.json["type"] == sent.headers["X-Webhook-Event"] == "webhook.ping"
    assert sent.json["data"] == {"endpoint_id": endpoint.id}
    assert len({sent.headers["webhook-id"] for sent in sender.sent}) == 2
    assert [delivery.event for delivery in await store.deliveries(endpoint.id)] == ["webhook.ping"] * 2


async def test_a_ping_reaches_a_disabled_endpoint_and_counts_for_nothing(store, actions, sender):
    endpoint, _ = await store.add(URL)
    for _ in range(LEAST_FAILURES * 2):
        sender.answer_with(410)
        await actions.ping(endpoint.id)
    assert (await store.get(endpoint.id)).active
    assert (await store.get(endpoint.id)).failing_since is None
    await store.disable(endpoint.id, "enough")
    assert (await actions.ping(endpoint.id)).status_code == 200
    assert not (await store.get(endpoint.id)).active
    with pytest.raises(webhooks.UnknownEndpoint):
        await actions.ping("x")


# -- pruning


async def test_old_deliveries_are_pruned_by_a_task(app, store):
    with clock.use(clock.FakeClock()) as now:
        endpoint, _ = await store.add(URL)
        await dispatch(app)
        now.advance(30 * DAY + 1)
        await dispatch(app)
        result = await app.tasks["prune_webhook_deliveries"].adelay(30)
        assert result.result == {"deleted": 1}
        assert len(await store.deliveries(endpoint.id)) == 1


async def test_thousands_are_pruned_in_chunks(store):
    endpoint, _ = await store.add(URL)
    async with store._database.async_writing() as connection:
        row = {name: getattr(attempt(endpoint, 200), name) for name in webhooks.Delivery.__dataclass_fields__}
        rows = [{**row, "id": str(number), "run_id": Run("x", "y").id} for number in range(2500)]
        await connection.execute(deliveries.insert(), rows)
    assert await store.prune(clock.now() + timedelta(seconds=1)) == 2500
    assert await store.deliveries(endpoint.id) == []
