"""What every pusher must do, the fake one included."""

import contextlib
from datetime import UTC, datetime

import pytest

from errands import Discard, OutcomeUnknown
from errands.fetching import Guard
from errands.kits.push import (
    Device,
    DeviceGone,
    FakePush,
    FcmPush,
    Notice,
    PushFailed,
    PushMessage,
    PushRefused,
    PushUnknown,
    VapidKey,
    WebPush,
    new_vapid_key,
)
from errands.kits.push.devices import subscription_address
from push_services import GARBAGE, HANG_UP, Answer, Fcm, PushService, fcm_error


def device(kind, address):
    return Device("d1", "7", kind, address, datetime(2026, 1, 1, tzinfo=UTC))


class FakeSetup:
    async def start(self, stack):
        self.pusher = FakePush("fcm")
        self.device = device("fcm", {"token": "t"})

    def fail(self, kind):
        error = {"gone": DeviceGone, "refused": PushRefused, "unknown": PushUnknown}.get(kind)
        if kind == "later":
            self.pusher.fail_with(PushFailed("no", retry_after=120, pause=True))
        else:
            self.pusher.fail_with((error or PushFailed)("no"))

    @property
    def arrived(self):
        return [(s.message.id, s.message.title, s.message.message) for s in self.pusher.sent]


class FcmSetup:
    async def start(self, stack):
        self.server = await stack.enter_async_context(Fcm())
        self.pusher = FcmPush(self.server.account, url=self.server.url)
        self.server.registered.add("token-of-a-phone")
        self.device = device("fcm", {"token": "token-of-a-phone"})

    def fail(self, kind):
        if kind == "gone":
            self.server.registered.clear()
            return
        self.server.next.append({
            "passing": fcm_error(500, "INTERNAL", "Internal error encountered.", "INTERNAL"),
            "later": fcm_error(
                429, "RESOURCE_EXHAUSTED", "Quota exceeded", "QUOTA_EXCEEDED", {"Retry-After": "120"}
            ),
            "refused": fcm_error(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
            "unknown": HANG_UP,
            "garbage": GARBAGE,
        }[kind])  # fmt: skip

    @property
    def arrived(self):
        return [
            (m["data"]["notification_id"], m["notification"]["title"], m["notification"]["body"])
            for m in self.server.messages
        ]


class WebPushSetup:
    async def start(self, stack):
        self.server = await stack.enter_async_context(PushService())
        vapid = VapidKey(new_vapid_key(), "mailto:admin@school.example")
        self.pusher = WebPush(vapid, Guard(f"127.0.0.1:{self.server.port}"))
        self.browser = self.server.subscribe(vapid.public_key)
        self.device = device("webpush", subscription_address(self.browser.subscription))

    def fail(self, kind):
        if kind == "gone":
            self.server.browsers.clear()
            return
        self.server.next.append({
            "passing": Answer(502, b"bad gateway"),
            "later": Answer(429, b"slow down", {"Retry-After": "120"}),
            "refused": Answer(400, b"no"),
            "unknown": HANG_UP,
            "garbage": GARBAGE,
        }[kind])  # fmt: skip

    @property
    def arrived(self):
        return [(m["id"], m["title"], m["message"]) for m in self.browser.received]


@pytest.fixture(params=[FakeSetup, FcmSetup, WebPushSetup])
async def setup(request):
    async with contextlib.AsyncExitStack() as stack:
        setup = request.param()
        await setup.start(stack)
        yield setup
        await setup.pusher.aclose()


def message(**values):
    notice = Notice(
        **{"title": "Grüße, 世界", "message": "Your grade is there", "data": {"course": 17}} | values
    )
    return PushMessage.of(notice, "n-1")


async def test_what_is_sent_arrives(setup):
    await setup.pusher.send(setup.device, message())
    assert setup.arrived == [("n-1", "Grüße, 世界", "Your grade is there")]


async def test_a_pusher_names_its_devices_kind_and_their_service(setup):
    assert setup.pusher.kind == setup.device.kind
    assert setup.pusher.service(setup.device)
    assert "secret" not in setup.pusher.service(setup.device)


async def test_a_device_that_is_gone_is_told_as_such(setup):
    setup.fail("gone")
    with pytest.raises(DeviceGone):
        await setup.pusher.send(setup.device, message())
    assert setup.arrived == []


async def test_a_passing_failure_can_be_sent_again(setup):
    setup.fail("passing")
    with pytest.raises(PushFailed) as caught:
        await setup.pusher.send(setup.device, message())
    assert not isinstance(caught.value, Discard)
    assert not caught.value.pause
    assert setup.arrived == []
    await setup.pusher.send(setup.device, message())
    assert len(setup.arrived) == 1


async def test_a_service_that_asks_for_peace_is_heard(setup):
    setup.fail("later")
    with pytest.raises(PushFailed) as caught:
        await setup.pusher.send(setup.device, message())
    assert (caught.value.retry_after, caught.value.pause) == (120, True)


async def test_a_message_that_is_refused_is_not_the_devices_fault(setup):
    setup.fail("refused")
    with pytest.raises(PushRefused) as caught:
        await setup.pusher.send(setup.device, message())
    assert not isinstance(caught.value, DeviceGone)
    assert isinstance(caught.value, Discard)


@pytest.mark.parametrize("how", ["unknown", "garbage"])
async def test_where_no_answer_comes_nobody_knows(setup, how):
    if how == "garbage" and isinstance(setup, FakeSetup):
        pytest.skip("nothing answers")
    setup.fail(how)
    with pytest.raises(PushUnknown) as caught:
        await setup.pusher.send(setup.device, message())
    assert isinstance(caught.value, OutcomeUnknown)


async def test_closing_twice_is_harmless_and_sending_opens_again(setup):
    await setup.pusher.send(setup.device, message())
    await setup.pusher.aclose()
    await setup.pusher.aclose()
    await setup.pusher.send(setup.device, message())
    assert len(setup.arrived) == 2
