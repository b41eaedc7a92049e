"""Numbers, texts, settings, and the kit's tasks in inline mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from errands import ConfigurationError, Errands, InvalidArguments, Settings
from errands.kits import messaging
from errands.kits.messaging.kit import messenger_from


def make_app(folder: Path, messenger: Any = None, **values: Any) -> Errands:
    app = Errands("test", settings=Settings(home=folder, inline=True, **values))
    app.use(messaging.kit(messenger, tasks=True))
    app.database.upgrade()
    return app


# -- numbers


@pytest.mark.parametrize(
    ("text", "region", "number"),
    [
        ("+49 170 1234567", None, "+491701234567"),
        ("+49 (0) 170 / 123 45 67", None, "+491701234567"),
        ("0170 1234567", "DE", "+491701234567"),
        ("0049 170 1234567", "DE", "+491701234567"),
        ("(201) 555-0123", "US", "+12015550123"),
        ("+84 91 234 56 78", "US", "+84912345678"),
        ("٠١٧٠ ١٢٣٤٥٦٧", "DE", "+491701234567"),  # digits of another script
    ],
)
def test_numbers_come_into_one_form(text: str, region: str | None, number: str) -> None:
    assert messaging.normalised(text, region) == number


@pytest.mark.parametrize(
    ("text", "region", "why"),
    [
        ("0170 1234567", None, "PHONE_REGION"),
        ("+49 1", None, "too short to be a phone number$"),
        ("+49 12", None, "no country has such a number"),
        ("+999 123456789", None, "is no phone number"),
        ("hello", "DE", "is no phone number"),
        ("", "DE", "is no phone number"),
        ("+1 800 FLOWERS", None, "use digits alone"),
        ("+49 30 123456 ext. 7", None, "use digits alone"),
        ("+4917012345678901234", None, "no country has such a number|is no phone number"),
        ("1" * 41, "DE", "at most 40 characters"),
    ],
)
def test_what_is_no_number_is_told_with_the_reason(text: str, region: str | None, why: str) -> None:
    with pytest.raises(messaging.InvalidNumber, match=why) as caught:
        messaging.normalised(text, region)
    assert "(0)" not in str(caught.value)


# -- texts


@pytest.mark.parametrize("body", ["x", "x" * 1000, " x "])
def test_a_text_has_1_to_1000_characters(body: str) -> None:
    assert messaging.Text(body).body == body


@pytest.mark.parametrize("body", ["", "x" * 1001, " \n "])
def test_other_texts_are_refused(body: str) -> None:
    with pytest.raises(messaging.InvalidMessage, match="1 to 1,000 characters"):
        messaging.Text(body)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 513])
def test_a_template_has_a_name(name: str) -> None:
    with pytest.raises(messaging.InvalidMessage, match="a name"):
        messaging.Template(name)


# -- the tasks


def test_a_text_goes_to_each_number_once(tmp_path: Path) -> None:
    messenger = messaging.FakeMessenger()
    app = make_app(tmp_path, lambda: messenger, phone_region="DE")
    numbers = ["0170 1234567", "+491701234567", "+49 170 7654321", "12"]
    with pytest.raises(InvalidArguments, match="phone_numbers"):
        app.tasks["send_bulk_messages"].delay(numbers, "Closed on Friday")
    numbers[3] = "+49 12"
    totals = app.tasks["send_bulk_messages"].delay(numbers, "Closed on Friday").get()
    assert (totals["recipients"], totals["sent"], totals["skipped"]) == (4, 2, 2)
    assert messenger.outbox == [
        ("+491701234567", messaging.Text("Closed on Friday")),
        ("+491707654321", messaging.Text("Closed on Friday")),
    ]


@pytest.mark.parametrize(
    ("numbers", "message", "kind", "why"),
    [
        ([], "hello", "text", "phone_numbers"),
        (["hello"], "hello", "text", "phone_numbers"),
        (["+49170" + "1" * 40], "hello", "text", "phone_numbers"),
        (["+491701234567"], "", "text", "message"),
        (["+491701234567"], "x" * 1001, "text", "message"),
        (["+491701234567"], "   ", "text", "message"),
        (["+491701234567"], "hello", "video", "message_type"),
    ],
)
def test_wrong_calls_are_refused_in_the_caller(
    tmp_path: Path, numbers: list[str], message: str, kind: str, why: str
) -> None:
    app = make_app(tmp_path, messaging.FakeMessenger)
    with pytest.raises(InvalidArguments, match=why):
        app.tasks["send_bulk_messages"].delay(numbers, message, kind)


def test_a_template_goes_to_one(tmp_path: Path) -> None:
    messenger = messaging.FakeMessenger()
    app = make_app(tmp_path, lambda: messenger)
    task = app.tasks["send_template_message"]
    assert task.delay("+49 170 1234567", "closed", {"day": "Friday"}).get() == {
        "status": "sent", "message_id": "fake-1",
    }  # fmt: skip
    assert messenger.outbox == [("+491701234567", messaging.Template("closed", {"day": "Friday"}))]


@pytest.mark.parametrize(
    ("number", "error", "kind", "told"),
    [
        ("+49 12", None, messaging.PermanentMessageError, "it is skipped: '.49 12' is no phone number"),
        ("+491701234567", messaging.PermanentMessageError("131026: undeliverable"),
         messaging.PermanentMessageError, "it is failed: 131026"),
        ("+491701234567", messaging.UnknownOutcomeError("no answer"), messaging.UnknownOutcomeError,
         "no answer"),
        ("+491701234567", messaging.ProviderRefused("190: expired"), messaging.ProviderRefused, "190"),
    ],
)  # fmt: skip
def test_a_template_that_does_not_go_fails_its_run(
    tmp_path: Path, number: str, error: Any, kind: type[Exception], told: str
) -> None:
    messenger = messaging.FakeMessenger()
    app = make_app(tmp_path, lambda: messenger)
    if error is not None:
        messenger.fail_with(error)
    with pytest.raises(kind, match=told):
        app.tasks["send_template_message"].delay(number, "closed").get()
    assert messenger.outbox == []


def test_a_provider_that_is_away_is_tried_again_by_the_run(tmp_path: Path) -> None:
    messenger = messaging.FakeMessenger()
    app = make_app(tmp_path, lambda: messenger)
    messenger.fail_with(messaging.ProviderUnavailable("503"), times=2)
    totals = app.tasks["send_bulk_messages"].delay(["+491701234567"], "hello").get()
    assert totals["sent"] == len(messenger.outbox) == 1


# -- settings


def test_without_any_setting_messages_go_into_a_file(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    app.tasks["send_bulk_messages"].delay(["+491701234567"], "Closed on Friday").get()
    (line,) = messaging.ConsoleMessenger(tmp_path / "messages.jsonl").lines()
    assert (line["to"], line["type"], line["text"]) == ("+491701234567", "text", "Closed on Friday")
    (limit,) = app.limits.all()
    assert (limit.name, limit.now, limit.tasks) == ("messages", "100/m", ("run.allow",))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, messaging.ConsoleMessenger),
        (
            {"messaging_provider": "whatsapp", "whatsapp_token": "t", "whatsapp_phone_number_id": "1"},
            messaging.WhatsAppMessenger,
        ),
        (
            {
                "messaging_provider": "twilio", "twilio_account_sid": "AC1", "twilio_auth_token": "t",
                "twilio_from": "+4930123456",
            },
            messaging.TwilioMessenger,
        ),
    ],
)  # fmt: skip
def test_the_settings_choose_the_provider(tmp_path: Path, values: Any, kind: type) -> None:
    assert type(messenger_from(Settings(home=tmp_path, **values))()) is kind


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"messaging_provider": "whatsapp", "whatsapp_token": "t"}, "WHATSAPP_PHONE_NUMBER_ID"),
        ({"messaging_provider": "twilio", "twilio_account_sid": "AC1"}, "TWILIO_AUTH_TOKEN"),
        ({"phone_region": "Germany"}, "PHONE_REGION 'Germany'"),
        ({"messaging_limit": "fast"}, "is no limit"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(tmp_path: Path, values: Any, why: str) -> None:
    app = Errands("test", settings=Settings(home=tmp_path, inline=True, **values))
    with pytest.raises(ConfigurationError, match=why):
        app.use(messaging.kit())


def test_a_limit_of_ones_own_or_none(tmp_path: Path) -> None:
    app = Errands("test", settings=Settings(home=tmp_path, inline=True))
    app.use(messaging.kit(limit=""))
    assert app.limits.all() == []
    app.use(messaging.kit(limit="5/s"))
    assert [limit.now for limit in app.limits.all()] == ["5/s"]
