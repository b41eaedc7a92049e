"""FCM: its access tokens, its error codes, what it carries; on a server that answers as Google documents."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from errands import ConfigurationError
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.push import (
    Device,
    DeviceGone,
    FcmPush,
    Notice,
    PushFailed,
    PushMessage,
    PushRefused,
    PushUnknown,
)
from push_services import SILENCE, Answer, Fcm, fcm_error

PHONE = Device("d1", "7", "fcm", {"token": "phone"}, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
async def server():
    async with Fcm() as server:
        server.registered.add("phone")
        yield server


@pytest.fixture
async def fcm(server):
    pusher = FcmPush(server.account, url=server.url, timeout=5)
    yield pusher
    await pusher.aclose()


def message(**values):
    return PushMessage.of(Notice(**{"title": "Hi", "message": "there"} | values), "n-1")


async def test_one_access_token_serves_all_who_send_at_once(fcm, server):
    await asyncio.gather(*(fcm.send(PHONE, message()) for _ in range(20)))
    await fcm.send(PHONE, message())
    assert (server.given, len(server.messages)) == (1, 21)


async def test_an_access_token_is_renewed_before_its_end(fcm, server):
    server.expires_in = 200  # Google's library takes the last 225 seconds of a token for its end
    await fcm.send(PHONE, message())
    server.expires_in = 3600
    await fcm.send(PHONE, message())
    await fcm.send(PHONE, message())
    assert server.given == 2


async def test_an_old_token_serves_while_the_token_server_is_away(fcm, server):
    server.expires_in = 200
    await fcm.send(PHONE, message())
    server.token_answers.append(Answer(400, {"error": "invalid_grant", "error_description": "try later"}))
    await fcm.send(PHONE, message())
    assert (server.given, len(server.messages)) == (1, 2)


async def test_a_token_that_was_taken_back_is_replaced_at_once(fcm, server):
    await fcm.send(PHONE, message())
    server.live_tokens.clear()
    await fcm.send(PHONE, message())
    assert (server.given, len(server.messages)) == (2, 2)


async def test_an_account_that_is_not_let_in_is_a_failure_that_may_pass(fcm, server):
    server.token_answers.append(Answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT"}))
    with pytest.raises(PushFailed, match=r"push@school-1.*invalid_grant.*ERRANDS_FCM_CREDENTIALS"):
        await fcm.send(PHONE, message())
    server.next.append(fcm_error(403, "PERMISSION_DENIED", "Cloud Messaging API has not been used"))
    with pytest.raises(PushFailed, match="Cloud Messaging API") as caught:
        await fcm.send(PHONE, message())
    assert caught.value.pause
    server.next += [fcm_error(401, "UNAUTHENTICATED", "no")] * 2
    with pytest.raises(PushFailed, match="401"):
        await fcm.send(PHONE, message())
    await fcm.send(PHONE, message())
    assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("answer", "error", "wait", "pause"),
    [
        (fcm_error(404, "NOT_FOUND", "Not found.", "UNREGISTERED"), DeviceGone, None, None),
        (fcm_error(403, "PERMISSION_DENIED", "mismatch", "SENDER_ID_MISMATCH"), PushRefused, None, None),
        # As Google's page on error codes shows it …
        (
            fcm_error(
                400, "INVALID_ARGUMENT", "The registration token is not a valid FCM registration token",
                "INVALID_ARGUMENT",
            ),
            DeviceGone, None, None,
        ),
        # … and as FCM really tells it.
        (
            fcm_error(
                400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "INVALID_ARGUMENT",
                fields=("message.token",),
            ),
            DeviceGone, None, None,
        ),
        (
            fcm_error(
                400, "INVALID_ARGUMENT", "Invalid value at 'message.data[0].value'", "INVALID_ARGUMENT",
                fields=("message.data[0].value",),
            ),
            PushRefused, None, None,
        ),
        (fcm_error(400, "INVALID_ARGUMENT", "An invalid argument."), PushRefused, None, None),
        (
            fcm_error(401, "UNAUTHENTICATED", "Auth error from APNS", "THIRD_PARTY_AUTH_ERROR"),
            PushRefused, None, None,
        ),
        (fcm_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded", "QUOTA_EXCEEDED"), PushFailed, 60, True),
        (
            fcm_error(
                429, "RESOURCE_EXHAUSTED", "Quota exceeded", "QUOTA_EXCEEDED", {"Retry-After": "300"}
            ),
            PushFailed, 300, True,
        ),
        (fcm_error(503, "UNAVAILABLE", "busy", "UNAVAILABLE", {"Retry-After": "30"}), PushFailed, 30, True),
        (
            fcm_error(
                503, "UNAVAILABLE", "overloaded", "UNAVAILABLE",
                {"Retry-After": "Thu, 01 Jan 2026 12:02:00 GMT"},
            ),
            PushFailed, 120, True,
        ),
        (fcm_error(503, "UNAVAILABLE", "overloaded", "UNAVAILABLE"), PushFailed, None, False),
        (fcm_error(500, "INTERNAL", "Internal error encountered.", "INTERNAL"), PushFailed, None, False),
        (Answer(502, b"<!DOCTYPE html><title>Error 502</title>"), PushFailed, None, False),
        (Answer(404, b"<html>not here</html>"), PushRefused, None, None),
        (Answer(400, {"error": "text"}), PushRefused, None, None),
        (Answer(400, {"error": {"details": [1, {"fieldViolations": None}]}}), PushRefused, None, None),
        (Answer(302, b"", {"Location": "http://elsewhere.example/"}), PushRefused, None, None),
    ],
)  # fmt: skip
async def test_what_follows_from_an_error(fcm, server, answer, error, wait, pause):
    server.next.append(answer)
    with clock.use(FakeClock(datetime(2026, 1, 1, 12, tzinfo=UTC))):
        with pytest.raises(error) as caught:
            await fcm.send(PHONE, message())
    assert type(caught.value) is error
    if error is PushFailed:
        assert (caught.value.retry_after, caught.value.pause) == (wait, pause)


async def test_a_server_that_does_not_answer_leaves_it_open(server):
    pusher = FcmPush(server.account, url=server.url, timeout=0.3)
    server.next.append(SILENCE)
    with pytest.raises(PushUnknown, match="not sent again"):
        await pusher.send(PHONE, message())
    await pusher.aclose()


async def test_a_server_that_is_not_there_has_heard_nothing(server):
    pusher = FcmPush(server.account, url="http://127.0.0.1:1")
    with pytest.raises(PushFailed):
        await pusher.send(PHONE, message())
    await pusher.aclose()


async def test_what_fcm_is_given(fcm, server):
    data = {"course": 17, "tags": ["a", "ü"], "from": "x", "google.y": "z", "text": "t"}
    with clock.use(FakeClock(datetime(2026, 1, 1, tzinfo=UTC))):
        await fcm.send(PHONE, message(data=data, kind="grade", urgent=True, topic="grade-17", ttl=60))
        await fcm.send(PHONE, message())
    first, second = server.messages
    assert first["data"] == {
        "course": "17", "tags": '["a", "ü"]', "data_from": "x", "data_google.y": "z", "text": "t",
        "notification_id": "n-1", "kind": "grade",
    }  # fmt: skip
    assert first["android"] == {
        "priority": "HIGH", "ttl": "60s", "notification": {"tag": "grade-17"}, "collapse_key": "grade-17",
    }  # fmt: skip
    assert first["apns"]["headers"] == {
        "apns-priority": "10", "apns-expiration": "1767225660", "apns-collapse-id": "grade-17",
    }  # fmt: skip
    # Without a topic, what comes twice replaces itself.
    assert second["android"]["notification"]["tag"] == "n-1"
    assert (second["android"]["priority"], second["apns"]["headers"]["apns-priority"]) == ("NORMAL", "5")


def test_a_key_that_is_none_is_refused(tmp_path):
    path = tmp_path / "key.json"
    for text in ("", "[]", "{}", json.dumps({"client_email": "a", "token_uri": "b", "private_key": "c"})):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="ERRANDS_FCM_CREDENTIALS"):
            FcmPush.from_file(path)
    with pytest.raises(ConfigurationError, match="can't be read"):
        FcmPush.from_file(tmp_path / "none.json")


async def test_the_project_may_be_another_than_the_accounts(server):
    account = {name: value for name, value in server.account.items() if name != "project_id"}
    with pytest.raises(ConfigurationError, match="ERRANDS_FCM_PROJECT"):
        FcmPush(account)
    pusher = FcmPush(account, project="school-1", url=server.url)
    await pusher.send(PHONE, message())
    assert len(server.messages) == 1
    await pusher.aclose()
