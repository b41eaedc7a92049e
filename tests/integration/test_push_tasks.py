"""The push kit's tasks on an app, all the way to boxes and devices, in inline mode."""

import pytest

from errands import (
    ConfigurationError,
    Errands,
    InvalidArguments,
    Keyring,
    Run,
    Settings,
)
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import push
from errands.ops.access import Person
from errands.ops.erase import Erasing
from push_rig import NOON, Rig, Users
from push_services import subscription


@pytest.fixture
def rig(tmp_path):
    with clock.use(FakeClock(NOON)):
        yield Rig(tmp_path)


def test_one_user_is_told_in_the_application_and_on_each_device(rig):
    rig.add_phones(7, 8)
    store = rig.instance(push.DeviceStore)
    rig.do(lambda: store.add_web_push(7, subscription()))
    run = rig.send("send_push_notification", 7, "Grade", "You have an A", {"course": 17}, kind="grade")
    assert run.get() == {"notified": 1, "skipped": 0, "pushed": 1, "failed": 0, "unknown": 0}
    assert rig.titles(7) == ["Grade"]
    assert rig.titles(8) == []
    (phone,), (browser,) = rig.phone.sent, rig.browser.sent
    assert phone.device.address == {"token": "token-of-the-phone-of-7"}
    assert phone.message == browser.message
    assert (phone.message.title, phone.message.data, phone.message.kind) == ("Grade", {"course": 17}, "grade")


def test_many_users_are_told_once_each(rig):
    rig.add_phones(1, 3)
    run = rig.send("send_push_notifications", [1, 2, 3, 2, "1"], "Hello", "there", {"a": 1})
    assert run.get() == {"notified": 3, "skipped": 0, "pushed": 2, "failed": 0, "unknown": 0}
    assert sorted(rig.told) == ["1", "3"]
    assert rig.titles(2) == ["Hello"]


def test_in_app_notifications_have_progress_and_counts(rig):
    rig.add_phones(1)
    store = rig.instance(push.NotificationStore)
    rig.do(lambda: store.turn_off(5, "general"))
    run = rig.send("send_bulk_notifications", list(range(2500)), "Hello", "there")
    assert run.get() == {"total": 2500, "notified": 2499, "skipped": 1}
    steps = [e.progress["current"] for e in rig.app.live.events if e.run_id == run.id and e.progress]
    assert steps[-1] == 2500
    assert rig.told == []  # into boxes alone


def test_nobody_at_all_is_no_error(rig):
    assert rig.send("send_bulk_notifications", [], "Hello", "there").get()["total"] == 0
    assert rig.send("send_push_notifications", [], "Hello", "there").get()["notified"] == 0


def test_a_second_delivery_of_the_run_tells_nobody_twice(rig):
    rig.add_phones(1, 2)
    task = rig.app.tasks["send_push_notifications"]
    first = rig.send("send_push_notifications", [1, 2], "Hello", "there")
    notifier = rig.instance(push.Notifier)

    async def again():
        # What a worker does when another died over the same run.
        return await task([1, 2, 3], "Hello", "there", run=Run(first.id, task.name), notifier=notifier)

    assert rig.do(again) == {"notified": 3, "skipped": 0, "pushed": 2, "failed": 0, "unknown": 0}
    assert sorted(rig.told) == ["1", "2"]
    assert rig.titles(1) == ["Hello"]
    assert rig.titles(3) == ["Hello"]


def test_a_kind_that_a_user_turned_off_is_skipped_everywhere(rig):
    rig.add_phones(1, 2)
    store = rig.instance(push.NotificationStore)
    rig.do(lambda: store.turn_off(1, "news"))
    run = rig.send("send_push_notifications", [1, 2], "Hello", "there", kind="news", urgent=True)
    assert run.get()["skipped"] == 1
    assert (rig.told, rig.titles(1), rig.titles(2)) == (["2"], [], ["Hello"])


@pytest.mark.parametrize(
    "arguments",
    [
        (7, "", "there"), (7, "a\nb", "there"), (7, "a" * 201, "there"), (7, "Hello", ""),
        (7, "Hello", "a" * 1001), (7, "Hello", "there", {"a": "b" * 2000}), (7, "Hello", "there", [1]),
        (None, "Hello", "there"), (7, "Hello", "there", {}, "two words"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_in_the_caller(rig, arguments):
    with pytest.raises(InvalidArguments):
        rig.send("send_push_notification", *arguments)


# -- broadcast


def test_a_broadcast_to_all_and_to_a_role(tmp_path):
    users = Users(1234, chunk=700)
    rig = Rig(tmp_path, users)
    rig.add_phones(1, 2)
    assert rig.send("send_broadcast_push_notification", "Hello", "all").get() == {"users": 1234, "runs": 4}
    assert rig.send("send_broadcast_push_notification", "Hello", "teachers", "teacher").get()["users"] == 617
    assert rig.titles(1) == ["Hello"]
    assert rig.titles(2) == rig.titles(1234) == ["Hello", "Hello"]
    assert sorted(rig.told) == ["1", "2", "2"]
    assert users.asked == [(None, None), ("teacher", None)]


def test_a_broadcast_that_is_begun_again_tells_nobody_twice(tmp_path):
    rig = Rig(tmp_path, Users(120))
    rig.add_phones(1)
    task = rig.app.tasks["send_broadcast_push_notification"]
    first = task.delay("Hello", "there")

    async def again(users):
        # Chunks that are cut otherwise are other runs, and still nobody is told twice.
        return await task("Hello", "there", run=Run(first.id, task.name), audience=users)

    assert rig.do(lambda: again(Users(130, chunk=33)))["users"] == 130
    assert rig.titles(1) == rig.titles(120) == rig.titles(130) == ["Hello"]
    assert rig.told == ["1"]


def test_without_an_audience_there_is_no_broadcast(tmp_path):
    app = Errands("test", settings=Settings(home=tmp_path, inline=True))
    app.use(push.kit(tasks=True))
    assert "send_broadcast_push_notification" not in app.tasks
    assert "send_bulk_notifications" in app.tasks


# -- people, settings


def test_erasing_a_person_erases_their_notifications_and_devices(rig):
    rig.add_phones(7, 8)
    rig.send("send_push_notifications", [7, 8], "Hello", "there").get()
    answer = Erasing(rig.app).erase_person(Person("root", frozenset({"admin"})), "7")
    assert answer["erasers"] == {"erase_notifications": 2}
    store = rig.instance(push.DeviceStore)
    assert (rig.titles(7), rig.titles(8)) == ([], ["Hello"])
    assert rig.do(lambda: store.of(7)) == []
    assert len(rig.do(lambda: store.of(8))) == 1


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"vapid_private_key": push.new_vapid_key()}, "ERRANDS_VAPID_SUBJECT"),
        ({"vapid_private_key": "x", "vapid_subject": "mailto:a@b.example"}, "ERRANDS_VAPID_PRIVATE_KEY"),
        ({"fcm_credentials": "/nowhere/key.json"}, "ERRANDS_FCM_CREDENTIALS"),
        ({"quiet_hours": "late"}, "quiet hours"),
        ({"quiet_hours": "22:00-07:00", "time_zone": "Mars"}, "time zone"),
        ({"fetch_allow": "localhost"}, "ERRANDS_FETCH_ALLOW"),
        (
            {"vapid_private_key": push.new_vapid_key(), "vapid_subject": "mailto:a@b.example",
             "secret_keys": ""},
            "ERRANDS_SECRET_KEYS",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting_stops_the_start(tmp_path, settings, name):
    values = {"home": tmp_path, "secret_keys": Keyring.new_key(), **settings}
    app = Errands("test", settings=Settings(**values))
    with pytest.raises(ConfigurationError, match=name):
        app.use(push.kit())


def test_the_settings_make_the_pushers(tmp_path):
    key = push.new_vapid_key()
    values = {"vapid_private_key": key, "vapid_subject": "mailto:a@b.example"}
    settings = Settings(home=tmp_path, inline=True, secret_keys=Keyring.new_key(), **values)
    app = Errands("test", settings=settings)
    app.use(push.kit())
    notifier = app.resources.instance(push.Notifier)
    assert notifier.public_key == push.VapidKey(key, "mailto:a@b.example").public_key
    plain = Errands("test", settings=Settings(home=tmp_path, inline=True))
    plain.use(push.kit())
    assert plain.resources.instance(push.Notifier).public_key is None
