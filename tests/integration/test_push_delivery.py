"""Pushes that fail: what is tried again, what is not, and what is never told twice."""

import asyncio
from datetime import timedelta

import pytest

from errands import (
    Discard,
    Run,
    State,
)
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import push
from errands.kits.push import DeviceGone, PushFailed, PushRefused, PushUnknown
from push_rig import NOON, Rig
from push_services import subscription


@pytest.fixture
def rig(tmp_path):
    with clock.use(FakeClock(NOON)):
        yield Rig(tmp_path)


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
