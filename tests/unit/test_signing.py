"""What is signed, what is believed, and for how long."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errands import ConfigurationError, Keyring, Settings, UntrustedMessage
from errands.core import clock
from errands.core.signing import Signer
from errands.testing import FakeClock
from errands.worker.trust import Trust

HOUR = 3600.0
KEY = Keyring.new_key("k1")
BODY = b'[[1],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
TEXT = BODY.decode()
HEADERS: dict[str, Any] = {
    "task": "pay", "id": "0192", "eta": None, "expires": None, "retries": 0, "root_id": "0192",
    "parent_id": None, "group": None, "timelimit": [None, None], "errands": {"owner": "ann", "hop": 0},
}  # fmt: skip


def signer(text: str = KEY) -> Signer:
    found = Signer.parse(text)
    assert found is not None
    return found


def signed(headers: dict[str, Any] | None = None, body: bytes = BODY, by: str = KEY) -> dict[str, Any]:
    headers = HEADERS if headers is None else headers
    return {**headers, "errands": signer(by).marks(headers, body, "application/json", "utf-8")}


def check(headers: dict[str, Any], body: bytes = BODY, kind: str = "application/json", by: str = KEY) -> Any:
    return signer(by).check(headers, body, kind, "utf-8")


def test_what_we_signed_is_believed() -> None:
    found = check(signed())
    assert found.key_id == "k1"
    assert abs(found.at - clock.timestamp()) < 60


def test_what_brokers_add_is_not_signed() -> None:
    assert check({**signed(), "redelivered": True, "x-delivery-count": 2, "compression": "x"}) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"task": "pay_all"}, {"id": "0193"}, {"retries": 1}, {"root_id": "x"}, {"parent_id": "x"},
        {"group": "g"}, {"eta": "2026-01-01T00:00:00+00:00"}, {"expires": "2030-01-01T00:00:00+00:00"},
        {"timelimit": [1, 1]}, {"x-tenant": "a header of the application's"}, {"shadow": "other"},
    ],
    ids=str,
)  # fmt: skip
def test_a_changed_header_is_noticed(change: dict[str, Any]) -> None:
    with pytest.raises(UntrustedMessage, match="changed"):
        check({**signed(), **change})


@pytest.mark.parametrize("change", [{"owner": "bob"}, {"hop": 7}, {"copy": True}, {"subject": "1"}], ids=str)
def test_what_we_say_of_a_run_cannot_be_forged(change: dict[str, Any]) -> None:
    headers = signed()
    with pytest.raises(UntrustedMessage, match="changed"):
        check({**headers, "errands": {**headers["errands"], **change}})


def test_a_header_cannot_be_taken_away() -> None:
    headers = signed()
    del headers["expires"]
    with pytest.raises(UntrustedMessage):
        check(headers)


@given(st.binary(max_size=80))
def test_a_changed_body_is_noticed(body: bytes) -> None:
    if body != BODY:
        with pytest.raises(UntrustedMessage, match="changed"):
            check(signed(), body)


def test_another_type_of_the_same_bytes_is_noticed() -> None:
    with pytest.raises(UntrustedMessage):
        check(signed(), kind="application/x-yaml")


def test_bytes_do_not_move_between_headers_and_body() -> None:
    """What is between them is told by a length, not by a character that could be in either."""
    one = signed({**HEADERS, "note": 'x"}]'}, b"body")
    for headers, body in (({**one, "note": "x"}, b'"}]body'), ({**one, "note": 'x"}]bo'}, b"dy")):
        with pytest.raises(UntrustedMessage):
            check(headers, body)


def test_the_order_of_headers_does_not_matter_and_their_values_come_back_through_json() -> None:
    headers = signed({**HEADERS, "at": 1.5, "nested": {"b": [1, None], "a": "ü\ud83d\ude00"}})
    turned = json.loads(json.dumps(dict(reversed(headers.items()))))
    assert check(turned) is not None


def test_keys_rotate_by_id() -> None:
    new = f"{Keyring.new_key('k2')},{KEY}"
    assert check(signed(), by=new).key_id == "k1"
    assert check(signed(by=new), by=new).key_id == "k2"
    with pytest.raises(UntrustedMessage, match="'k2'"):
        check(signed(by=new))


def test_a_key_of_the_same_name_is_not_the_same_key() -> None:
    with pytest.raises(UntrustedMessage, match="changed"):
        check(signed(), by=Keyring.new_key("k1"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "k1",
        "k1:1",
        "k1:now:abc",
        "::",
        "k1:1:é",
        "k1:1:\ud800",
        "k1:" + "9" * 5000 + ":x",
        7,
        ["k1", "1", "x"],
        {},
    ],
)
def test_what_is_no_signature_is_refused(text: Any) -> None:
    with pytest.raises(UntrustedMessage):
        check({**HEADERS, "errands": {"sig": text}})


@pytest.mark.parametrize("marks", [None, "owner", {"owner": "ann"}, ["sig"]])
def test_without_a_signature_nobody_vouches(marks: Any) -> None:
    assert check({**HEADERS, "errands": marks}) is None


@pytest.mark.parametrize("text", ["k1:c2hvcnQ=", "bad id:" + "A" * 43 + "=", "nocolon"])
def test_keys_that_are_no_keys_are_refused_at_start(text: str) -> None:
    with pytest.raises(ConfigurationError, match="ERRANDS_SIGNING_KEYS"):
        Settings(signing_keys=text)


def test_without_keys_nothing_is_signed() -> None:
    assert Settings().signer() is None


def test_a_short_memory_and_keys_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="ERRANDS_RESULT_EXPIRES"):
        Settings(signing_keys=KEY, result_expires=60)


# -- which of them a worker believes, and when


@dataclass
class Sent:
    """A message as a worker gets it."""

    headers: dict[str, Any]
    delivery_info: dict[str, Any] = field(default_factory=dict)
    body: Any = TEXT
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


def trust(*remembered: str, accept_unsigned: bool = False) -> Callable[[Any], None]:
    known = set(remembered).__contains__
    return Trust(signer(), accept_unsigned=accept_unsigned, memory=24 * HOUR, known=known).check


def eta(seconds: float) -> str:
    return datetime.fromtimestamp(clock.timestamp() + seconds, UTC).isoformat()


def test_unsigned_messages_are_believed_by_choice() -> None:
    with pytest.raises(UntrustedMessage, match="ERRANDS_ACCEPT_UNSIGNED"):
        trust()(Sent(HEADERS))
    trust(accept_unsigned=True)(Sent(HEADERS))


def test_a_wrong_signature_is_refused_also_where_none_is_needed() -> None:
    with pytest.raises(UntrustedMessage, match="changed"):
        trust(accept_unsigned=True)(Sent({**signed(), "task": "other"}))


def test_an_old_message_is_believed_only_while_its_run_is_remembered() -> None:
    with clock.use(FakeClock()) as time:
        assert isinstance(time, FakeClock)
        sent = Sent(signed())
        time.advance(11 * HOUR)
        trust()(sent)
        time.advance(2 * HOUR)
        trust("0192")(sent)  # it has waited long, and its run waits still
        with pytest.raises(UntrustedMessage, match="13 hours old"):
            trust()(sent)


def test_a_delay_of_months_is_no_age() -> None:
    with clock.use(FakeClock()) as time:
        assert isinstance(time, FakeClock)
        sent = Sent(signed({**HEADERS, "eta": eta(90 * 24 * HOUR)}))
        time.advance(90 * 24 * HOUR + 60)
        trust()(sent)
        time.advance(13 * HOUR)
        with pytest.raises(UntrustedMessage, match="13 hours old"):
            trust()(sent)


def test_a_delayed_message_that_is_brought_forward_is_refused() -> None:
    """It would run now, be forgotten, and run once more when it is due."""
    with clock.use(FakeClock()):
        due = eta(90 * 24 * HOUR)
        headers = signed({**HEADERS, "eta": due})
        trust()(Sent(headers))  # a broker that leaves waiting to the worker
        brought_forward = Sent({**headers, "eta": eta(0)}, {"eta": due})  # as our transport tells it
        with pytest.raises(UntrustedMessage, match="before its time"):
            trust()(brought_forward)


def test_clocks_may_differ_by_hours() -> None:
    with clock.use(FakeClock()) as time:
        assert isinstance(time, FakeClock)
        due = eta(4 * HOUR)
        sent = Sent({**signed({**HEADERS, "eta": due}), "eta": eta(0)}, {"eta": due})
        time.advance(2 * HOUR)  # the server says that it is due
        trust()(sent)
        ahead = Sent(signed())
        time.advance(-5 * HOUR)
        trust()(ahead)


@pytest.mark.parametrize("body", ["\ud800", 7.5, object()])
def test_a_body_that_nobody_could_have_signed_is_refused(body: Any) -> None:
    with pytest.raises(UntrustedMessage):
        trust()(Sent(signed(), body=body))


def test_headers_that_go_on_for_ever_are_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UntrustedMessage):
        trust()(Sent({**signed(), "deep": deep}))


def test_bytes_and_text_are_the_same_body() -> None:
    trust()(Sent(signed(), body=BODY))
    with pytest.raises(UntrustedMessage):
        trust()(Sent(signed(), body=base64.b64encode(BODY)))
