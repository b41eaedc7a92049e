"""Web Push against a service that checks VAPID, and browsers that decrypt."""

import json
import ssl
import time
from datetime import UTC, datetime

import pytest

from errands import ConfigurationError
from errands.core import clock
from errands.core.clock import FakeClock
from errands.fetching import Guard
from errands.kits.push import (
    Device,
    DeviceGone,
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
from push_services import SILENCE, Answer, PushService
from tls import EncryptedDoor, make_certificate

SUBJECT = "mailto:admin@school.example"


@pytest.fixture
async def server():
    async with PushService() as server:
        yield server


@pytest.fixture
def vapid():
    return VapidKey(new_vapid_key(), SUBJECT)


@pytest.fixture
async def pusher(server, vapid):
    pusher = WebPush(vapid, Guard(f"127.0.0.1:{server.port}"), timeout=5)
    yield pusher
    await pusher.aclose()


def device(subscription):
    address = subscription_address(subscription)
    return Device("d1", "7", "webpush", address, datetime(2026, 1, 1, tzinfo=UTC))


def message(**values):
    return PushMessage.of(Notice(**{"title": "Hi", "message": "there"} | values), "n-1")


async def test_the_browser_reads_what_was_sent(pusher, server, vapid):
    browser = server.subscribe(vapid.public_key)
    await pusher.send(device(browser.subscription), message(data={"a": [1, "ü"]}, kind="grade", ttl=60))
    await pusher.send(device(browser.subscription), message(urgent=True, topic="grade-17"))
    assert browser.received == [
        {"id": "n-1", "title": "Hi", "message": "there", "kind": "grade", "data": {"a": [1, "ü"]},
         "ttl": 60, "urgency": "normal"},
        {"id": "n-1", "title": "Hi", "message": "there", "kind": "general", "data": {}, "ttl": 86400,
         "urgency": "high"},
    ]  # fmt: skip
    first, second = server.requests
    assert second.headers["topic"] == "grade-17"
    assert len(first.headers["topic"]) == 32  # its own: the service keeps one of what comes twice
    assert b"there" not in first.body
    assert first.headers["authorization"] == second.headers["authorization"]  # signed once


async def test_the_largest_notice_fits(pusher, server, vapid):
    browser = server.subscribe(vapid.public_key)
    data = {"x": "y" * 1980}
    await pusher.send(device(browser.subscription), message(title="世" * 200, message="🎓" * 1000, data=data))
    (told,) = browser.received
    assert told["data"] == data
    assert told["title"] == "世" * 200
    assert told["message"].endswith("🎓…")
    assert len(told["message"]) > 100
    assert len(server.requests[0].body) <= 4096


async def test_a_signature_is_renewed_in_time(server, vapid):
    with clock.use(FakeClock(clock.now())) as now:
        first = vapid.authorization(server.url)
        now.advance(10 * 3600)
        assert vapid.authorization(server.url) == first
        assert vapid.authorization("https://elsewhere.example") != first
        now.advance(2 * 3600)
        assert vapid.authorization(server.url) != first


@pytest.mark.parametrize(
    ("answer", "error", "wait", "pause"),
    [
        (Answer(404), DeviceGone, None, None),
        (Answer(410), DeviceGone, None, None),
        (Answer(413, b"payload too large"), PushRefused, None, None),
        (Answer(400), PushRefused, None, None),
        (Answer(401), PushRefused, None, None),
        (Answer(403), PushRefused, None, None),
        (Answer(429, b"", {"Retry-After": "17"}), PushFailed, 17, True),
        (Answer(429), PushFailed, 60, True),
        (Answer(500), PushFailed, None, False),
        (Answer(503, b"", {"Retry-After": "5"}), PushFailed, 5, True),
        (Answer(408), PushFailed, None, False),
        (Answer(307, b"", {"Location": "http://127.0.0.1/inside"}), PushFailed, None, False),
    ],
)
async def test_what_follows_from_an_answer(pusher, server, vapid, answer, error, wait, pause):
    browser = server.subscribe(vapid.public_key)
    server.next.append(answer)
    with pytest.raises(error) as caught:
        await pusher.send(device(browser.subscription), message())
    assert type(caught.value) is error
    if error is PushFailed:
        assert (caught.value.retry_after, caught.value.pause) == (wait, pause)
    assert len(server.requests) == 1


async def test_a_browser_that_subscribed_with_another_key_is_kept(pusher, server):
    """A wrong key in the settings must not cost everybody's subscription."""
    browser = server.subscribe(VapidKey(new_vapid_key(), SUBJECT).public_key)
    with pytest.raises(PushRefused, match="ERRANDS_VAPID_PRIVATE_KEY") as caught:
        await pusher.send(device(browser.subscription), message())
    assert not isinstance(caught.value, DeviceGone)


async def test_an_endpoint_inside_the_network_is_not_called(server, vapid):
    browser = server.subscribe(vapid.public_key)
    for endpoint in (
        browser.endpoint,
        "https://127.0.0.1/x",
        "https://[::1]/",
        "https://localhost/",
        "ftp://a/",
    ):
        with pytest.raises(PushRefused, match="is not called"):
            await WebPush(vapid).send(device({**browser.subscription, "endpoint": endpoint}), message())
    assert server.requests == []


async def test_a_service_that_does_not_answer_leaves_it_open(server, vapid):
    browser = server.subscribe(vapid.public_key)
    pusher = WebPush(vapid, Guard(f"127.0.0.1:{server.port}"), timeout=0.3)
    server.next.append(SILENCE)
    with pytest.raises(PushUnknown):
        await pusher.send(device(browser.subscription), message())


async def test_a_service_that_is_not_there_has_heard_nothing(vapid, server):
    browser = server.subscribe(vapid.public_key)
    gone = {**browser.subscription, "endpoint": "http://127.0.0.1:1025/push"}
    with pytest.raises(PushFailed):
        await WebPush(vapid, Guard("127.0.0.1:1025")).send(device(gone), message())


async def test_connections_to_the_known_services_are_kept_and_to_others_not(server, vapid):
    browser = server.subscribe(vapid.public_key)
    guard = Guard(f"127.0.0.1:{server.port}")
    for services, connections in ((("127.0.0.1",), 1), ((".example",), 3)):
        before = server.connections
        pusher = WebPush(vapid, guard, services=services)
        for _ in range(3):
            await pusher.send(device(browser.subscription), message())
        assert server.connections - before == connections
        await pusher.aclose()


async def test_over_tls_the_certificate_must_be_trusted(server, vapid, tmp_path):
    certificate = make_certificate(tmp_path)
    with EncryptedDoor(certificate, server.port) as door:
        inside, server.url = server.url, f"https://127.0.0.1:{door.port}"
        browser = server.subscribe(vapid.public_key)
        guard = Guard(f"127.0.0.1:{door.port}")
        with pytest.raises(PushFailed, match="certificate"):
            await WebPush(vapid, guard).send(device(browser.subscription), message())
        trusting = WebPush(vapid, guard, tls=ssl.create_default_context(cafile=str(certificate)))
        await trusting.send(device(browser.subscription), message())
        server.url = inside
    assert len(browser.received) == 1


def test_keys_are_checked():
    key = new_vapid_key()
    assert VapidKey(key, "https://school.example").public_key == VapidKey(key + "=", SUBJECT).public_key
    for private, subject, name in (
        (key, "admin@school.example", "SUBJECT"), (key, "", "SUBJECT"), (key[:-4], SUBJECT, "PRIVATE_KEY"),
        ("ü", SUBJECT, "PRIVATE_KEY"), ("", SUBJECT, "PRIVATE_KEY"), ("A" * 43, SUBJECT, "PRIVATE_KEY"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=name):
            VapidKey(private, subject)


def test_a_signature_is_good_for_hours(vapid):
    token = vapid.authorization("https://push.example").split("t=")[1].split(",")[0]
    import base64

    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["aud"] == "https://push.example"
    assert claims["sub"] == SUBJECT
    assert time.time() + 3600 < claims["exp"] <= time.time() + 24 * 3600
