"""What a notification may say."""

import json

import pytest

from errands import Discard
from errands.kits.push import InvalidDevice, InvalidNotice, Notice, PushMessage
from errands.kits.push.devices import subscription_address
from push_services import subscription


def test_a_notice_says_what_it_was_given():
    notice = Notice(
        "Grade", "You have an A", {"course": 17}, kind="grade.new", urgent=True, topic="g-17", ttl=0
    )
    message = PushMessage.of(notice, "n-1")
    assert (message.title, message.message, message.data) == ("Grade", "You have an A", {"course": 17})
    assert (message.kind, message.urgent, message.topic, message.ttl) == ("grade.new", True, "g-17", 0)
    assert Notice("a", "b", None).data == {}


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"title": ""}, "title"), ({"title": "a" * 201}, "title"), ({"title": "a\nb"}, "title"),
        ({"message": ""}, "message"), ({"message": "a" * 1001}, "1,001"), ({"kind": ""}, "kind"),
        ({"kind": "two words"}, "kind"), ({"kind": "a" * 65}, "kind"), ({"kind": "a\n"}, "kind"),
        ({"topic": ""}, "topic"), ({"topic": "a" * 33}, "topic"), ({"topic": "a b"}, "topic"),
        ({"ttl": -1}, "ttl"), ({"ttl": 29 * 86400}, "ttl"), ({"data": {"a": "b" * 2000}}, "2,00"),
        ({"data": {"a": object()}}, "JSON"), ({"data": {"a": float("nan")}}, "JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(values, what):
    with pytest.raises(InvalidNotice, match=what) as caught:
        Notice(**{"title": "a", "message": "b"} | values)
    assert isinstance(caught.value, Discard)


@pytest.mark.parametrize("letter", ["a", "ü", "世", "🎓", '"', "\n"])
def test_a_message_is_shortened_to_what_a_payload_takes(letter):
    notice = Notice("t" * 200, letter * 1000, {"x": "y" * 1980})
    message = PushMessage.of(notice, "n-1")
    weight = len(json.dumps([message.title, message.message, message.data], ensure_ascii=False).encode())
    assert weight <= 3600
    if letter == "a":
        assert message.message == notice.message
    if letter == "🎓":
        assert message.message.endswith("…")
        assert weight > 3400


def test_a_subscription_is_kept_in_one_form():
    given = subscription(auth="BTBZMqHH6r4Tts7J_aSIgg")
    padded = subscription(p256dh=given["keys"]["p256dh"] + "=", auth="BTBZMqHH6r4Tts7J/aSIgg==")
    assert subscription_address(given) == subscription_address(padded)
    assert subscription_address(given) == {"endpoint": given["endpoint"], "keys": given["keys"]}


@pytest.mark.parametrize(
    "given",
    [
        {}, [], {"endpoint": "https://a.example"}, {"endpoint": 1, "keys": {}},
        subscription(p256dh=""), subscription(p256dh="BTBZ"), subscription(p256dh="ü" * 87),
        subscription(p256dh="B" * 87), subscription(auth=""), subscription(auth="BTBZMqHH6r4Tts7J_aSI"),
        subscription(auth=None), {**subscription(), "keys": None},
        {**subscription(), "endpoint": "https://a.example/" + "x" * 5000},
    ],
)  # fmt: skip
def test_what_is_no_subscription_is_refused(given):
    with pytest.raises(InvalidDevice):
        subscription_address(given)
