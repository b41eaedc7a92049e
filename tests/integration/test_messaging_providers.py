"""WhatsApp and Twilio against local servers that answer as their documentation says, errors included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from errands.kits.messaging import (
    MessagingError,
    PermanentMessageError,
    ProviderRefused,
    ProviderUnavailable,
    RecipientOptedOut,
    Template,
    TemporaryMessageError,
    Text,
    TwilioMessenger,
    UnknownOutcomeError,
    WhatsAppMessenger,
)
from message_services import (
    DROP,
    GATEWAY,
    SILENT,
    Service,
    Twilio,
    WhatsApp,
    meta_error,
    serving,
    twilio_error,
)

ANN = "+491701234567"
RATE = "Message failed to send because there were too many messages sent from this phone number"


@pytest.fixture
async def meta() -> AsyncIterator[Service]:
    async with serving(WhatsApp()) as service:
        yield service


@pytest.fixture
async def twilio() -> AsyncIterator[Service]:
    async with serving(Twilio()) as service:
        yield service


async def by_whatsapp(service: Service, answer: Any, **options: Any) -> BaseException:
    messenger = WhatsAppMessenger(
        "good-token", "10654", url=f"{service.url}/v23.0", **{"timeout": 0.3} | options
    )
    service.answers.append(answer)
    return await _failure(messenger)


async def by_twilio(service: Service, answer: Any) -> BaseException:
    messenger = TwilioMessenger("AC1", "good-token", "+4930123456", url=service.url, timeout=0.3)
    service.answers.append(answer)
    return await _failure(messenger)


async def _failure(messenger: Any) -> BaseException:
    with pytest.raises(MessagingError) as caught:
        await messenger.send(ANN, Text("hello"))
    await messenger.aclose()
    return caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (meta_error(429, 130429, "Rate limit hit", RATE), ProviderUnavailable, f"130429: {RATE}"),
        (meta_error(400, 130429, "Rate limit hit", RATE), ProviderUnavailable, "130429"),  # its code counts
        (meta_error(429, 4, "Application request limit reached"), ProviderUnavailable, "4: (#4) Application"),
        (meta_error(429, 80007, "Rate limit issues"), ProviderUnavailable, "80007"),
        (meta_error(503, 131016, "Service unavailable"), ProviderUnavailable, "131016"),
        (meta_error(503, 2, "Service temporarily unavailable"), ProviderUnavailable, "2: "),
        (meta_error(400, 131056, "pair rate limit hit"), TemporaryMessageError, "131056"),
        (meta_error(500, 131000, "Something went wrong"), TemporaryMessageError, "131000"),
        (meta_error(401, 190, "Access token has expired"), ProviderRefused, "WHATSAPP_TOKEN"),
        (meta_error(403, 10, "Permission denied"), ProviderRefused, "10: "),
        (meta_error(403, 200, "Permissions error"), ProviderRefused, "200: "),
        (meta_error(403, 131031, "Account has been locked"), ProviderRefused, "131031"),
        (meta_error(400, 131050, "User stopped marketing messages"), RecipientOptedOut, "131050"),
        (meta_error(400, 131026, "Message undeliverable"), PermanentMessageError, "131026"),
        (meta_error(400, 131047, "Re-engagement message"), PermanentMessageError, "131047"),
        (meta_error(404, 132001, "Template does not exist"), PermanentMessageError, "132001"),
        (meta_error(400, 100, "Invalid parameter"), PermanentMessageError, "100: "),
        (GATEWAY, UnknownOutcomeError, "502"),
        ((504, "", {}), UnknownOutcomeError, "504"),
        ((500, "{", {}), UnknownOutcomeError, "500"),
        ((503, "busy", {}), ProviderUnavailable, "503"),
        ((429, "slow down", {}), ProviderUnavailable, "429"),
        ((401, "", {}), ProviderRefused, "401"),
        ((404, "", {}), PermanentMessageError, "404: no reason"),
        ((200, "<html>hello</html>", {}), UnknownOutcomeError, "without a message's id"),
        ((200, {"messages": []}, {}), UnknownOutcomeError, "without a message's id"),
        ((302, "", {"Location": "/elsewhere"}), PermanentMessageError, "302"),
        (SILENT, UnknownOutcomeError, "did not answer (ReadTimeout"),
        (DROP, UnknownOutcomeError, "did not answer (RemoteProtocolError"),
    ],
)
async def test_what_whatsapp_answers(meta: Service, answer: Any, kind: type[Exception], told: str) -> None:
    failure = await by_whatsapp(meta, answer)
    assert type(failure) is kind
    assert told in str(failure)
    assert "good-token" not in str(failure)
    assert len(meta.arrived) == 1  # nothing is repeated by itself


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (twilio_error(429, 20429, "Too Many Requests"), ProviderUnavailable, "20429: Too Many Requests"),
        (twilio_error(503, 20503, "Service unavailable"), ProviderUnavailable, "20503"),
        (twilio_error(401, 20003, "Authenticate"), ProviderRefused, "TWILIO_AUTH_TOKEN"),
        (twilio_error(404, 20404, "The requested resource was not found"), ProviderRefused, "20404"),
        (twilio_error(400, 21606, "The 'From' number is not yours"), ProviderRefused, "21606"),
        (twilio_error(400, 21610, "Attempt to send to unsubscribed recipient"), RecipientOptedOut, "21610"),
        (twilio_error(400, 21211, "Invalid 'To' Phone Number"), PermanentMessageError, "21211: Invalid"),
        (twilio_error(400, 21614, "'To' is not a mobile number"), PermanentMessageError, "21614"),
        (twilio_error(500, 20500, "Internal Server Error"), UnknownOutcomeError, "20500"),
        (GATEWAY, UnknownOutcomeError, "502: no reason"),
        ((201, {"status": "queued"}, {}), UnknownOutcomeError, "without a message's SID"),
        ((201, "[]", {}), UnknownOutcomeError, "without a message's SID"),
        (SILENT, UnknownOutcomeError, "did not answer (ReadTimeout"),
        (DROP, UnknownOutcomeError, "did not answer (RemoteProtocolError"),
    ],
)
async def test_what_twilio_answers(twilio: Service, answer: Any, kind: type[Exception], told: str) -> None:
    failure = await by_twilio(twilio, answer)
    assert type(failure) is kind
    assert told in str(failure)
    assert "good-token" not in str(failure)
    assert len(twilio.arrived) == 1


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("soon", None)])
async def test_what_they_ask_to_wait_is_heard(
    meta: Service, twilio: Service, header: str, seconds: float | None
) -> None:
    for failure in (
        await by_whatsapp(meta, meta_error(429, 130429, "Rate limit hit", Retry_After=header)),
        await by_twilio(twilio, twilio_error(429, 20429, "Too Many Requests", Retry_After=header)),
    ):
        assert isinstance(failure, ProviderUnavailable)
        assert failure.retry_after == seconds


async def test_a_wrong_token_is_told_as_such(meta: Service, twilio: Service) -> None:
    for messenger in (
        WhatsAppMessenger("wrong", "10654", url=f"{meta.url}/v23.0"),
        TwilioMessenger("AC1", "wrong", "+4930123456", url=twilio.url),
    ):
        assert type(await _failure(messenger)) is ProviderRefused


async def test_where_nobody_listens_nothing_was_sent() -> None:
    for messenger in (
        WhatsAppMessenger("t", "1", url="http://127.0.0.1:1/v23.0"),
        TwilioMessenger("AC1", "t", "+4930123456", url="http://127.0.0.1:1"),
    ):
        failure = await _failure(messenger)
        assert type(failure) is ProviderUnavailable
        assert "no connection to" in str(failure)


async def test_an_address_that_is_none_is_a_matter_of_settings() -> None:
    assert type(await _failure(WhatsAppMessenger("t", "1", url="ftp://x"))) is ProviderRefused


async def test_connections_are_kept(meta: Service) -> None:
    messenger = WhatsAppMessenger("good-token", "10654", url=f"{meta.url}/v23.0")
    for _ in range(5):
        await messenger.send(ANN, Text("hello"))
    await messenger.aclose()
    assert len(meta.arrived) == 5


async def test_a_template_in_whatsapps_words(meta: Service) -> None:
    messenger = WhatsAppMessenger("good-token", "10654", url=f"{meta.url}/v23.0")
    await messenger.send(ANN, Template("closed", ["Friday"], "de"))
    await messenger.send(ANN, Template("closed", {"day": "Friday"}))
    await messenger.aclose()
    assert meta.arrived[0].body == {
        "messaging_product": "whatsapp", "recipient_type": "individual", "to": ANN, "type": "template",
        "template": {
            "name": "closed", "language": {"code": "de"},
            "components": [{"type": "body", "parameters": [{"type": "text", "text": "Friday"}]}],
        },
    }  # fmt: skip
    (place,) = meta.arrived[1].body["template"]["components"][0]["parameters"]
    assert place == {"type": "text", "text": "Friday", "parameter_name": "day"}


@pytest.mark.parametrize(
    ("sender", "to", "names"),
    [
        ("+4930123456", ANN, {"From": "+4930123456"}),
        ("whatsapp:+4930123456", f"whatsapp:{ANN}", {"From": "whatsapp:+4930123456"}),
        ("MG0123", ANN, {"MessagingServiceSid": "MG0123"}),
    ],
)
async def test_who_sends_by_twilio(twilio: Service, sender: str, to: str, names: dict[str, str]) -> None:
    messenger = TwilioMessenger("AC1", "good-token", sender, url=twilio.url)
    receipt = await messenger.send(ANN, Text("hello"))
    await messenger.aclose()
    assert receipt.id.startswith("SM")
    assert twilio.arrived[0].body == {"To": to, "Body": "hello", **names}
