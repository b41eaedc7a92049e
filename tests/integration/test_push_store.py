"""Boxes and devices in SQL."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from errands import Keyring, metadata
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.push import (
    DeviceNotFound,
    DeviceStore,
    InvalidDevice,
    Notice,
    NotificationNotFound,
    NotificationStore,
    boxes,
    devices,
)
from errands.kits.push.tables import devices as devices_table
from errands.store import migrate
from push_services import subscription

HELLO = Notice("Hello", "there", {"a": [1, "ü"]}, kind="hello")


@pytest.fixture
async def store(database):
    yield NotificationStore(lambda: database)
    await database.adispose()


@pytest.fixture
async def device_store(database):
    yield DeviceStore(lambda: database, Keyring.parse(Keyring.new_key()))
    await database.adispose()


def test_the_migration_makes_what_the_tables_say(empty_database):
    empty_database.upgrade()
    with empty_database.reading() as connection:
        options = {
            "version_table": migrate.VERSION_TABLE, "compare_type": False,
            "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
        }  # fmt: skip
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
    assert [difference for difference in found if "push" in str(difference)] == []
    assert [difference for difference in found if "notification" in str(difference)] == []


# -- boxes


async def test_a_notification_is_in_the_box_of_each_user(store):
    with clock.use(FakeClock(datetime(2026, 1, 1, tzinfo=UTC))):
        added = await store.add(HELLO, ["7", "8"], "run-1")
    assert set(added.ids) == set(added.new) == {"7", "8"}
    (found,) = await store.list(7)
    assert found.as_dict() == {
        "id": added.ids["7"], "number": 1, "kind": "hello", "title": "Hello", "message": "there",
        "data": {"a": [1, "ü"]}, "created_at": "2026-01-01T00:00:00+00:00", "read_at": None,
    }  # fmt: skip
    assert (await store.unread(7), await store.unread("8"), await store.unread(9)) == (1, 1, 0)


async def test_the_same_source_tells_a_user_once(store):
    first = await store.add(HELLO, ["7", "8"], "run-1")
    again = await store.add(HELLO, ["8", "9"], "run-1")
    assert again.new == ["9"]
    assert again.ids["8"] == first.ids["8"]
    assert len(await store.list("8")) == 1
    await store.add(HELLO, ["8"], "run-2")
    assert [n.number for n in await store.list("8")] == [2, 1]


async def test_pages_go_back_from_the_newest(store):
    for n in range(5):
        await store.add(Notice(f"n{n}", "x"), ["7"], f"run-{n}")
    first = await store.list("7", limit=2)
    second = await store.list("7", limit=2, before=first[-1].number)
    assert [n.title for n in [*first, *second]] == ["n4", "n3", "n2", "n1"]
    assert [n.title for n in await store.since("7", 3)] == ["n3", "n4"]


async def test_reading_one_and_all(store):
    for n in range(3):
        await store.add(HELLO, ["7", "8"], f"run-{n}")
    newest = (await store.list("7"))[0]
    await store.mark_read("7", newest.id)
    await store.mark_read("7", newest.id)  # again is no error
    assert await store.unread("7") == 2
    assert [n.id for n in await store.list("7", unread=True)] == [n.id for n in (await store.list("7"))[1:]]
    with pytest.raises(NotificationNotFound):
        await store.mark_read("8", newest.id)
    assert await store.mark_all_read("7") == 2
    assert (await store.unread("7"), await store.unread("8")) == (0, 3)


async def test_a_kind_that_was_turned_off_is_skipped(store):
    await store.turn_off("7", "hello")
    await store.turn_off("7", "other")
    added = await store.add(HELLO, ["7", "8"], "run-1")
    assert (set(added.ids), added.muted) == ({"8"}, 1)
    assert await store.muted_kinds("7") == ["hello", "other"]
    await store.turn_on("7", "hello")
    await store.turn_on("7", "hello")
    assert (await store.add(HELLO, ["7"], "run-2")).new == ["7"]
    assert await store.muted_kinds("7") == ["other"]
    assert await store.last_number("7") == 1


async def test_kinds_turned_off_at_once_are_all_off(store):
    await asyncio.gather(*(store.turn_off("7", f"kind-{n}") for n in range(10)))
    assert len(await store.muted_kinds("7")) == 10


async def test_thousands_at_once(store):
    users = [f"user-{n}" for n in range(2500)]
    added = await store.add(HELLO, users, "run-1")
    assert len(added.new) == len(added.ids) == 2500
    assert (await store.add(HELLO, users, "run-1")).new == []
    assert set((await store.last_numbers(users)).values()) == {1}


def test_numbers_ascend_in_the_order_of_commits(database):
    """Whoever reads after number n never finds a lower one later, however many write at once."""
    users = [f"u{n}" for n in range(20)]
    stop = threading.Event()
    seen: dict[str, list[int]] = {user: [] for user in users}
    errors: list[BaseException] = []

    def write(writer):
        try:
            for n in range(15):
                order = users if (writer + n) % 2 else list(reversed(users))
                with database.writing() as connection:
                    boxes.add(connection, HELLO, order, f"run-{writer}-{n}")
        except BaseException as exc:
            errors.append(exc)

    def read():
        while True:
            last = stop.is_set()
            with database.reading() as connection:
                for user in users:
                    after = seen[user][-1] if seen[user] else 0
                    seen[user] += [n.number for n in boxes.since(connection, user, after)]
            if last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert errors == []
    assert seen == {user: list(range(1, 61)) for user in users}


def test_two_deliveries_of_a_run_at_once_tell_a_user_once(database):
    users = [f"u{n}" for n in range(200)]
    barrier = threading.Barrier(4)
    errors: list[BaseException] = []

    def deliver():
        try:
            barrier.wait()
            with database.writing() as connection:
                boxes.add(connection, HELLO, users, "run-1")
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.reading() as connection:
        assert [len(boxes.listed(connection, user)) for user in users] == [1] * 200


async def test_only_what_was_read_and_is_old_is_deleted(store):
    with clock.use(FakeClock(datetime(2026, 1, 1, tzinfo=UTC))) as now:
        await store.add(HELLO, ["7"], "old and read")
        await store.mark_all_read("7")
        await store.add(HELLO, ["7"], "old and unread")
        now.advance(timedelta(days=40))
        await store.add(HELLO, ["7"], "new and read")
        await store.mark_read("7", (await store.list("7"))[0].id)
        assert await store.prune(clock.now() - timedelta(days=30)) == 1
    assert [n.number for n in await store.list("7")] == [3, 2]
    # What comes next goes on counting.
    await store.mark_all_read("7")
    await store.prune(clock.now() + timedelta(days=1))
    await store.add(HELLO, ["7"], "next")
    assert [n.number for n in await store.list("7")] == [4]


def test_erasing_a_user_leaves_others(database):
    with database.writing() as connection:
        boxes.add(connection, HELLO, ["7", "8"], "run-1")
        assert boxes.erase(connection, "7") == 1
        assert boxes.erase(connection, "7") == 0
        assert boxes.last_numbers(connection, ["7", "8"]) == {"7": 0, "8": 1}


# -- devices


async def test_devices_of_a_user(device_store):
    phone = await device_store.add_fcm(7, "token-of-a-phone-of-7")
    browser = await device_store.add_web_push(7, subscription())
    await device_store.add_fcm(8, "token-of-a-phone-of-8")
    found = {device.id: device for device in await device_store.of(7)}
    assert set(found) == {phone.id, browser.id}
    assert found[phone.id].address == {"token": "token-of-a-phone-of-7"}
    assert found[browser.id].address["endpoint"] == "https://push.example/1"
    assert "token" not in repr(phone)
    await device_store.remove(7, phone.id)
    with pytest.raises(DeviceNotFound):
        await device_store.remove(8, browser.id)
    assert [device.id for device in await device_store.of("7")] == [browser.id]


async def test_addresses_are_sealed(device_store, database):
    await device_store.add_fcm(7, "token-of-a-phone-of-7")
    with database.reading() as connection:
        row = connection.execute(select(devices_table)).mappings().one()
    assert row["address"].startswith("sealed:v1:")
    assert "token-of" not in str(dict(row))


async def test_a_device_belongs_to_whoever_signed_in_last(device_store):
    first = await device_store.add_fcm(7, "token-of-a-shared-phone")
    second = await device_store.add_fcm(8, "token-of-a-shared-phone")
    assert await device_store.of(7) == []
    (found,) = await device_store.of(8)
    assert found.id == second.id != first.id
    # A push to the one before that finds it gone does not take it from the new one.
    await device_store.note([], [first])
    assert len(await device_store.of(8)) == 1


async def test_of_many_devices_the_oldest_are_forgotten(device_store):
    with clock.use(FakeClock(datetime(2026, 1, 1, tzinfo=UTC))) as now:
        for n in range(devices.MOST + 3):
            await device_store.add_fcm(7, f"token-number-{n}-of-a-phone")
            now.advance(1)
    kept = {device.address["token"] for device in await device_store.of(7)}
    assert kept == {f"token-number-{n}-of-a-phone" for n in range(3, devices.MOST + 3)}


async def test_when_a_device_was_reached_last_is_noted_now_and_then(device_store):
    with clock.use(FakeClock(datetime(2026, 1, 1, tzinfo=UTC))) as now:
        await device_store.add_fcm(7, "token-of-a-phone-of-7")
        (device,) = await device_store.of(7)
        assert device.last_ok_at is None
        await device_store.note([device], [])
        (device,) = await device_store.of(7)
        assert device.last_ok_at == now_at(now)
        now.advance(60)
        await device_store.note([device], [])
        assert (await device_store.of(7))[0].last_ok_at == device.last_ok_at
        now.advance(3600)
        await device_store.note([device], [])
        assert (await device_store.of(7))[0].last_ok_at == now_at(now)


def now_at(fake):
    return datetime.fromtimestamp(fake.timestamp(), UTC)


@pytest.mark.parametrize("token", ["", "short", "with a space in the middle of it", "ü" * 30, "a" * 5000, 7])
async def test_what_is_no_token_is_refused(device_store, token):
    with pytest.raises(InvalidDevice):
        await device_store.add_fcm(7, token)


async def test_an_address_that_must_not_be_called_is_not_kept(database):
    from errands.fetching import Guard

    store = DeviceStore(lambda: database, Keyring.parse(Keyring.new_key()), Guard().parse)
    for endpoint in ("http://push.example/", "https://10.0.0.1/", "https://a:b@push.example/", "x"):
        with pytest.raises(InvalidDevice, match="not called"):
            await store.add_web_push(7, {**subscription(), "endpoint": endpoint})
    assert await store.of(7) == []
    await database.adispose()
