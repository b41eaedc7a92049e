"""What comes at night lies in the box at once, and reaches devices in the morning."""

from datetime import UTC, datetime

import pytest

from errands import (
    Retry,
    Run,
    Snooze,
)
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import push
from errands.kits.push import PushFailed, QuietHours
from push_rig import NIGHT, NOON, Rig


@pytest.fixture
def quiet(tmp_path):
    with clock.use(FakeClock(NOON)):
        yield Rig(tmp_path, quiet=True)


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
