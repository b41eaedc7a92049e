"""Endpoints and deliveries in a real database."""

from datetime import timedelta

import pytest
from sqlalchemy import inspect, select, text, update

from errands import Keyring, SecretError
from errands.core import clock
from errands.kits.webhooks import (
    AddressRefused,
    Delivery,
    DuplicateEndpoint,
    UnknownDelivery,
    UnknownEndpoint,
    WebhookStore,
)
from errands.kits.webhooks.tables import deliveries, endpoints, line


@pytest.fixture
async def database(database):
    yield database
    await database.adispose()


@pytest.fixture
def store(database):
    return WebhookStore(database, Keyring.parse(Keyring.new_key()))


async def test_an_endpoint_is_kept_with_its_secret_sealed(store, database):
    endpoint, secret = await store.add("https://Example.com/hook", ["a.b", "c.*", "a.b"], created_by="7")
    assert endpoint == await store.get(endpoint.id) == await store.by_url("https://example.com:443/hook")
    assert (endpoint.url, endpoint.events, endpoint.active) == (
        "https://example.com/hook",
        ("a.b", "c.*"),
        True,
    )
    assert await store.secrets(endpoint.id) == (secret,)
    assert secret not in repr(endpoint)
    async with database.async_reading() as connection:
        rows = (await connection.execute(text("select * from errands_webhook_endpoints"))).all()
    assert secret not in repr(rows)
    assert secret.removeprefix("whsec_") not in repr(rows)


async def test_the_secret_of_one_endpoint_does_not_open_as_anothers(store, database):
    one, _ = await store.add("https://one.example/")
    two, _ = await store.add("https://two.example/")
    async with database.async_writing() as connection:
        of_two = select(endpoints.c.secrets).where(endpoints.c.id == two.id).scalar_subquery()
        await connection.execute(update(endpoints).where(endpoints.c.id == one.id).values(secrets=of_two))
    with pytest.raises(SecretError, match="sealed for something else"):
        await store.secrets(one.id)


async def test_who_wants_which_event(store):
    every, _ = await store.add("https://every.example/")
    some, _ = await store.add("https://some.example/", ["course.*", "user.registered"])
    assert [e.id for e in await store.list()] == [every.id, some.id]

    async def wanting(event):
        return {e.id for e in await store.for_event(event)}

    assert await wanting("course.completed") == {every.id, some.id}
    assert await wanting("user.registered") == {every.id, some.id}
    assert await wanting("user.left") == {every.id}
    await store.disable(every.id, "too many failures")
    assert await wanting("course.completed") == {some.id}
    assert (await store.get(every.id)).disabled_reason == "too many failures"
    await store.enable(every.id)
    assert await wanting("user.left") == {every.id}
    assert (await store.get(every.id)).disabled_reason is None


async def test_one_address_is_registered_once(store):
    await store.add("https://example.com/hook")
    with pytest.raises(DuplicateEndpoint):
        await store.add("https://EXAMPLE.com/hook#again")


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.0.0.1/", "nonsense"])
async def test_an_address_that_must_not_be_called_is_not_registered(store, url):
    with pytest.raises(AddressRefused):
        await store.add(url)
    assert await store.list() == []


@pytest.mark.parametrize("events", [[], [""]])
async def test_an_endpoint_without_events_is_refused(store, events):
    with pytest.raises(ValueError, match="events"):
        await store.add("https://example.com/", events)


async def test_a_rotation_keeps_the_secret_before_for_its_time_and_no_older_one(store):
    with clock.use(clock.FakeClock()) as now:
        endpoint, first = await store.add("https://example.com/")
        assert endpoint.previous_until is None
        second = await store.rotate_secret(endpoint.id)
        assert await store.secrets(endpoint.id) == (second, first)
        assert (await store.get(endpoint.id)).previous_until == now_plus(days=1)
        third = await store.rotate_secret(endpoint.id, previous_for=timedelta(hours=1))
        assert await store.secrets(endpoint.id) == (third, second)
        now.advance(3599)
        assert await store.secrets(endpoint.id) == (third, second)
        now.advance(1)
        assert await store.secrets(endpoint.id) == (third,)
        fourth = await store.rotate_secret(endpoint.id, previous_for=timedelta(0))
        assert await store.secrets(endpoint.id) == (fourth,)
        assert (await store.get(endpoint.id)).previous_until is None
        with pytest.raises(ValueError, match="previous_for"):
            await store.rotate_secret(endpoint.id, previous_for=timedelta(seconds=-1))


def now_plus(**times):
    return clock.now() + timedelta(**times)


async def test_a_second_secret_from_before_there_was_an_end_goes_on_until_the_next_rotation(store, database):
    endpoint, first = await store.add("https://example.com/")
    second = await store.rotate_secret(endpoint.id)
    async with database.async_writing() as connection:
        await connection.execute(update(endpoints).values(previous_until=None))
    with clock.use(clock.FakeClock(clock.now() + timedelta(days=1000))):
        assert await store.secrets(endpoint.id) == (second, first)


async def test_what_an_endpoint_wants_can_be_changed(store):
    endpoint, _ = await store.add("https://example.com/", ["a.b"])
    assert not endpoint.ordered
    await store.change(endpoint.id, events=["c.*", "c.*"], ordered=True)
    changed = await store.get(endpoint.id)
    assert (changed.events, changed.ordered) == (("c.*",), True)
    await store.change(endpoint.id)
    assert await store.get(endpoint.id) == changed
    with pytest.raises(ValueError, match="events"):
        await store.change(endpoint.id, events=[])


async def test_what_is_unknown_is_said_to_be(store):
    for call in (
        store.get("x"), store.remove("x"), store.disable("x", "y"), store.enable("x"), store.secrets("x"),
        store.rotate_secret("x"), store.change("x", ordered=True),
    ):  # fmt: skip
        with pytest.raises(UnknownEndpoint, match="'x'"):
            await call
    assert await store.by_url("https://example.com/") is None
    with pytest.raises(UnknownDelivery, match="'x'"):
        await store.delivery("x")


async def test_deliveries_outlive_their_endpoint_and_are_pruned_by_age(store, database):
    endpoint, _ = await store.add("https://example.com/")
    now = clock.now()
    for attempt, age in ((1, 40), (2, 1)):
        await store.record(
            Delivery(
                run_id="r", endpoint_id=endpoint.id, event="a.b", url=endpoint.url, attempt=attempt,
                status_code=None, error="no answer\0\ud800", duration_ms=5, at=now - timedelta(days=age),
                next_try_at=now,
            )
        )  # fmt: skip
    newest, oldest = await store.deliveries(endpoint.id)
    assert (newest.attempt, oldest.attempt) == (2, 1)
    assert newest.next_try_at == now
    assert await store.deliveries(endpoint.id, limit=1) == [newest]
    assert await store.prune(now - timedelta(days=30)) == 1
    await store.remove(endpoint.id)
    async with database.async_reading() as connection:
        rows = (
            await connection.execute(text("select endpoint_id, attempt from errands_webhook_deliveries"))
        ).all()
    assert rows == [(None, 2)]


def test_the_migration_makes_the_tables_as_they_are_declared(database):
    inspector = inspect(database.engine)
    for table in (endpoints, deliveries, line):
        made = {column["name"]: column["nullable"] for column in inspector.get_columns(table.name)}
        assert made == {column.name: bool(column.nullable) for column in table.columns}
        indexes = {index["name"]: index["column_names"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            assert indexes[index.name] == [column.name for column in index.columns]
