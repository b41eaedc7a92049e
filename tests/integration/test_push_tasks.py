"""The push kit's tasks on an app, all the way to boxes and devices, in inline mode."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from errands import (
    ConfigurationError,
    Discard,
    Errands,
    InvalidArguments,
    Keyring,
    Retry,
    Run,
    Settings,
    Snooze,
    State,
)
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import push
from errands.kits.push import DeviceGone, PushFailed, PushRefused, PushUnknown, QuietHours
from errands.kits.push.tables import notifications
from errands.ops.access import Person
from errands.ops.erase import Erasing
from push_services import subscription

NOON = datetime(2026, 1, 10, 11, tzinfo=UTC)
NIGHT = datetime(2026, 1, 10, 23, tzinfo=UTC)


class Users:
    """An audience of numbers; the even ones are teachers."""

    def __init__(self, count, chunk=50):
        self.count, self.chunk, self.asked = count, chunk, []

    async def users(self, role, after):
        self.asked.append((role, after))
        start = 1 if after is None else after + 1
        ids = [n for n in range(start, self.count + 1) if role is None or n % 2 == 0]
        for index in range(0, len(ids), self.chunk):
            yield ids[index : index + self.chunk]


class Phone(push.FakePush):
    """Notes when each message came as well; those of some users are `away` for some attempts."""

    def __init__(self, kind):
        super().__init__(kind)
        self.times = []
        self.away = {}

    async def send(self, device, message):
        if self.away.get(device.user_id, 0):
            self.away[device.user_id] -= 1
            raise PushFailed("503")
        await super().send(device, message)
        self.times.append(clock.now())


class Rig:
    def __init__(self, tmp_path, users=(), **options):
        self.phone, self.browser = Phone("fcm"), push.FakePush("webpush")
        quiet = (
            {"quiet_hours": "22:00-07:00", "time_zone": "Europe/Berlin"}
            if options.pop("quiet", False)
            else {}
        )
        settings = Settings(home=tmp_path, inline=True, secret_keys=Keyring.new_key(), **quiet)
        self.app = Errands("test", settings=settings)
        pushers = [self.phone, self.browser]
        self.app.use(push.kit(lambda: pushers, audience=lambda: users, tasks=True, **options))
        self.app.database.upgrade()

    def send(self, name, *args, **kwargs):
        return self.app.tasks[name].delay(*args, **kwargs)

    def instance(self, kind):
        return self.app.resources.instance(kind)

    def do(self, function):
        """Run a coroutine of a loop of its own, as an endpoint would."""

        async def doing():
            try:
                return await function()
            finally:
                await self.app.database.adispose()

        return asyncio.run(doing())

    def add_phones(self, *users):
        store = self.instance(push.DeviceStore)

        async def adding():
            return [await store.add_fcm(user, f"token-of-the-phone-of-{user}") for user in users]

        return self.do(adding)

    def titles(self, user):
        store = self.instance(push.NotificationStore)
        return [n.title for n in self.do(lambda: store.list(user))]

    def pushes(self):
        with self.app.database.reading() as connection:
            rows = connection.execute(select(notifications.c.user_id, notifications.c.push))
            return {row.user_id: row.push for row in rows}

    @property
    def told(self):
        return [sent.device.user_id for sent in self.phone.sent]


@pytest.fixture
def rig(tmp_path):
    with clock.use(FakeClock(NOON)):
        yield Rig(tmp_path)


@pytest.fixture
def quiet(tmp_path):
    with clock.use(FakeClock(NOON)):
        yield Rig(tmp_path, quiet=True)


# -- one and many


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


# -- what goes wrong


def test_a_device_that_is_gone_is_removed(rig):
    rig.add_phones(1, 2)
    rig.phone.fail_with(DeviceGone("UNREGISTERED"))
    run = rig.send("send_push_notifications", [1], "Hello", "there")
    assert run.get() == {"notified": 1, "skipped": 0, "pushed": 0, "failed": 0, "unknown": 0}
    store = rig.instance(push.DeviceStore)
    assert rig.do(lambda: store.of(1)) == []
    assert len(rig.do(lambda: store.of(2))) == 1


def test_only_what_failed_is_tried_again(rig):
    devices = rig.add_phones(1, 2)
    store = rig.instance(push.DeviceStore)
    rig.do(lambda: store.add_web_push(1, subscription()))
    rig.browser.fail_with(PushFailed("503", retry_after=900), times=2)
    run = rig.send("send_push_notifications", [1, 2], "Hello", "there")
    assert run.get()["pushed"] == 2
    assert sorted(rig.told) == ["1", "2"]
    assert [sent.device.user_id for sent in rig.browser.sent] == ["1"]
    assert rig.app.live.get(run.id).attempt == 3
    assert clock.now() - NOON >= timedelta(minutes=30)
    assert len(devices) == 2


@pytest.mark.parametrize("second", [DeviceGone("410"), PushRefused("400")])
def test_a_device_that_was_reached_is_not_told_again_whatever_becomes_of_the_others(rig, second):
    rig.add_phones(1, 2)
    store = rig.instance(push.DeviceStore)
    rig.do(lambda: store.add_web_push(1, subscription()))
    rig.browser.fail_with(PushFailed("503"))
    rig.browser.fail_with(second)
    rig.phone.away["2"] = 2  # keeps the run going
    run = rig.send("send_push_notifications", [1, 2], "Hello", "there")
    assert run.get()["pushed"] == 2
    assert sorted(rig.told) == ["1", "2"]
    assert rig.browser.sent == []


def test_a_device_that_is_signed_out_between_two_attempts_is_waited_for_no_more(rig):
    (device,) = rig.add_phones(1)
    store = rig.instance(push.DeviceStore)
    task, notifier = rig.app.tasks["send_push_notifications"], rig.instance(push.Notifier)
    run = Run(rig.app.new_id(), task.name)
    rig.phone.fail_with(PushFailed("503"))
    with pytest.raises(PushFailed):
        rig.do(lambda: task([1], "Hello", "there", run=run, notifier=notifier))
    rig.do(lambda: store.remove(1, device.id))
    assert rig.do(lambda: task([1], "Hello", "there", run=run, notifier=notifier))["pushed"] == 0
    assert rig.pushes() == {"1": "gone"}


def test_a_service_that_asks_for_peace_gets_it(rig):
    rig.add_phones(*range(60))
    rig.phone.fail_with(PushFailed("QUOTA_EXCEEDED", retry_after=60, pause=True))
    run = rig.send("send_push_notifications", list(range(60)), "Hello", "there")
    assert run.get()["pushed"] == 60
    # Had the others gone on asking, they would have been told in the first attempt.
    assert rig.app.live.get(run.id).attempt == 2
    assert clock.now() - NOON >= timedelta(seconds=60)
    assert set(rig.phone.times) == {clock.now()}
    assert sorted(map(int, rig.told)) == list(range(60))


def test_tries_end_and_a_person_may_try_again(rig):
    rig.add_phones(1, 2)
    rig.phone.fail_with(PushFailed("503"), times=14)
    run = rig.send("send_push_notifications", [1, 2], "Hello", "there")
    with pytest.raises(PushFailed, match="2 of 2 users are not reached yet: 503"):
        run.get()
    record = rig.app.live.get(run.id)
    assert (record.attempt, record.state) == (7, State.FAILED)
    assert rig.pushes() == {"1": "waiting", "2": "waiting"}
    assert rig.titles(1) == ["Hello"]
    task, notifier = rig.app.tasks["send_push_notifications"], rig.instance(push.Notifier)
    by_hand = Run(run.id, task.name)
    counts = rig.do(lambda: task([1, 2], "Hello", "there", run=by_hand, notifier=notifier))
    assert counts["pushed"] == len(rig.told) == 2


def test_of_many_some_may_fail(rig):
    rig.add_phones(1, 2)
    rig.phone.fail_with(PushRefused("INVALID_ARGUMENT"))
    run = rig.send("send_push_notifications", [1, 2], "Hello", "there")
    assert run.get() == {"notified": 2, "skipped": 0, "pushed": 1, "failed": 1, "unknown": 0}
    assert sorted(rig.pushes().values()) == ["failed", "pushed"]


def test_what_no_device_takes_ends_the_run_at_once(rig):
    rig.add_phones(1)
    rig.phone.fail_with(PushRefused("INVALID_ARGUMENT"))
    run = rig.send("send_push_notification", 1, "Hello", "there")
    with pytest.raises(Discard, match="INVALID_ARGUMENT"):
        run.get()
    assert rig.app.live.get(run.id).state is State.DISCARDED


def test_what_nobody_knows_is_not_sent_again(rig):
    rig.add_phones(1, 2)
    rig.phone.fail_with(PushUnknown("no answer"))
    run = rig.send("send_push_notifications", [1, 2], "Hello", "there")
    assert run.get() == {"notified": 2, "skipped": 0, "pushed": 1, "failed": 0, "unknown": 1}
    assert len(rig.phone.sent) == 1


def test_an_error_of_the_pushers_own_is_told_and_what_was_sent_is_kept(rig):
    rig.add_phones(*range(1, 4))
    rig.phone.fail_with(RuntimeError("a mistake"))
    task, notifier = rig.app.tasks["send_push_notifications"], rig.instance(push.Notifier)
    run_id = rig.app.new_id()

    async def once():
        return await task([1, 2, 3], "Hello", "there", run=Run(run_id, task.name), notifier=notifier)

    with pytest.raises(RuntimeError, match="a mistake"):
        rig.do(once)
    first = len(rig.phone.sent)
    counts = rig.do(once)
    # The one that broke may have been sent; those that were not begun are sent now.
    assert counts["unknown"] + counts["pushed"] == 3
    assert len(rig.phone.sent) == len(set(rig.told)) >= first


def test_what_a_dead_worker_had_begun_is_unknown(rig):
    rig.add_phones(1, 2)
    task, notifier = rig.app.tasks["send_push_notifications"], rig.instance(push.Notifier)
    run_id = rig.app.new_id()
    entered = asyncio.Event()

    class Stuck(push.FakePush):
        async def send(self, device, message):
            entered.set()
            await asyncio.Event().wait()

    async def dying():
        delivery = notifier._delivery
        before, delivery._pushers["fcm"] = delivery._pushers["fcm"], Stuck("fcm")
        settle, delivery._settle = delivery._settle, lambda pushes: asyncio.sleep(0)  # as a KILL does
        coroutine = task([1, 2], "Hello", "there", run=Run(run_id, task.name), notifier=notifier)
        attempt = asyncio.create_task(coroutine)
        await entered.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        delivery._pushers["fcm"], delivery._settle = before, settle

    rig.do(dying)
    assert set(rig.pushes().values()) == {"begun"}

    async def again():
        return await task([1, 2, 3], "Hello", "there", run=Run(run_id, task.name), notifier=notifier)

    assert rig.do(again) == {"notified": 3, "skipped": 0, "pushed": 0, "failed": 0, "unknown": 2}
    assert rig.told == []


# -- quiet hours


def test_what_comes_at_night_waits_for_the_morning(quiet):
    quiet.add_phones(1, 2)
    with clock.use(FakeClock(NIGHT)):
        run = quiet.send("send_push_notifications", [1, 2, 3], "Hello", "there")
        assert run.get()["pushed"] == 2
        # Inline, the clock has moved on to the end of the wait: 07:00 in Berlin.
        assert clock.now() == datetime(2026, 1, 11, 6, tzinfo=UTC)
    record = quiet.app.live.get(run.id)
    assert record.attempt == 1  # a wait counts as no attempt
    assert sorted(quiet.told) == ["1", "2"]


def test_at_night_it_is_in_the_box_at_once(quiet):
    quiet.add_phones(1)
    task, notifier = quiet.app.tasks["send_push_notification"], quiet.instance(push.Notifier)
    with clock.use(FakeClock(NIGHT)):
        run = Run(quiet.app.new_id(), task.name)
        with pytest.raises(Snooze) as caught:
            quiet.do(lambda: task(1, "Hello", "there", run=run, notifier=notifier))
    assert caught.value.seconds == 7 * 3600
    assert (quiet.titles(1), quiet.told) == (["Hello"], [])


def test_what_is_urgent_does_not_wait(quiet):
    quiet.add_phones(1)
    with clock.use(FakeClock(NIGHT)):
        quiet.send("send_push_notification", 1, "Fire", "Leave the house", urgent=True).get()
        assert clock.now() == NIGHT
    assert quiet.told == ["1"]
    assert quiet.phone.sent[0].message.urgent


def test_who_has_no_device_does_not_keep_the_run_waiting(quiet):
    with clock.use(FakeClock(NIGHT)):
        quiet.send("send_push_notifications", [1, 2], "Hello", "there").get()
        assert clock.now() == NIGHT


def test_users_may_have_quiet_hours_of_their_own(tmp_path):
    own = {"2": QuietHours("20:00-08:30", "Europe/Berlin"), "3": None}
    asked = []

    async def quiet_hours_of(users):
        asked.append(sorted(users))
        return {user: own[user] for user in users if user in own}

    rig = Rig(tmp_path, quiet=True, quiet_hours_of=quiet_hours_of)
    rig.add_phones(1, 2, 3)
    when = {}

    class Watching(push.FakePush):
        async def send(self, device, message):
            when[device.user_id] = clock.now()

    rig.instance(push.Notifier)._delivery._pushers["fcm"] = Watching("fcm")
    with clock.use(FakeClock(NIGHT)):
        assert rig.send("send_push_notifications", [1, 2, 3], "Hello", "there").get()["pushed"] == 3
    assert when == {
        "3": NIGHT, "1": datetime(2026, 1, 11, 6, tzinfo=UTC), "2": datetime(2026, 1, 11, 7, 30, tzinfo=UTC),
    }  # fmt: skip
    assert asked == [["1", "2", "3"], ["1", "2"], ["2"]]


def test_what_failed_at_night_is_not_lost_over_the_wait(quiet):
    quiet.add_phones(1)
    evening = FakeClock(datetime(2026, 1, 10, 20, 59, tzinfo=UTC))  # a minute before they begin
    with clock.use(evening):
        quiet.phone.fail_with(PushFailed("503", retry_after=120))
        assert quiet.send("send_push_notification", 1, "Hello", "there").get()["pushed"] == 1
        assert clock.now() == datetime(2026, 1, 11, 6, tzinfo=UTC)


def test_what_is_held_back_is_not_lost_with_what_failed(tmp_path):
    """The last attempt waits for the morning, and only then says that somebody was not reached."""
    own = {"2": QuietHours("10:00-23:00", "UTC")}

    async def quiet_hours_of(users):
        return {user: own[user] for user in users if user in own}

    with clock.use(FakeClock(NOON)):
        rig = Rig(tmp_path, quiet_hours_of=quiet_hours_of, retry=Retry(1, first=60))
        rig.add_phones(1, 2)
        rig.phone.fail_with(PushFailed("503"), times=2)
        run = rig.send("send_push_notifications", [1, 2], "Hello", "there")
        assert run.get()["pushed"] == 2  # by then the service is back
        assert clock.now() == datetime(2026, 1, 10, 23, tzinfo=UTC)


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
