"""The parts of the transport that need no server."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state
from kombu.exceptions import ContentDisallowed, DecodeError

from errands.broker.keys import Keys
from errands.broker.streams import layout
from errands.broker.streams.dead_letters import recorder
from errands.broker.streams.holdings import grouped
from errands.broker.streams.message import Message, NotAMessage, NotDue, due_ms, unpack
from errands.broker.streams.options import Options
from errands.broker.streams.qos import QoS
from errands.core.events import Event, Kind


def entry(*more: bytes, headers: dict[str, Any] | None = None) -> list[bytes]:
    """The fields of an entry with a message of these headers."""
    message = {"body": "", "headers": headers or {}, "properties": {"delivery_info": {}}}
    return [b"m", json.dumps(message).encode(), *more]


def test_each_level_is_first_often_enough() -> None:
    first = Counter(layout.turn(number).partition(",")[0] for number in range(800))
    assert first == {"high": 600, "normal": 100, "low": 100}
    for number in range(8):
        assert sorted(layout.turn(number).split(",")) == ["high", "low", "normal"]
    assert layout.turn(0) == "high,normal,low"


def test_front_streams_come_before_their_level() -> None:
    streams = layout.streams_of(Keys("p:"), "q")
    assert streams[:2] == ["p:q:q:high:front", "p:q:q:high"]
    assert len(streams) == 6


def test_a_tag_names_stream_and_entry() -> None:
    assert layout.split_tag(layout.tag_of("p:q:a|b:high", "1-0")) == ("p:q:a|b:high", "1-0")


def test_tags_are_told_by_stream() -> None:
    assert grouped(["a|1-0", "b|1-0", "a|2-0"]) == ["a", 2, "1-0", "2-0", "b", 1, "1-0"]
    assert grouped([]) == []


def test_a_message_is_given_its_tag() -> None:
    message = unpack(entry(headers={"id": "x"}), "s|1-0")
    assert message["properties"]["delivery_tag"] == "s|1-0"
    assert message["properties"]["delivery_info"] == {}
    assert message["headers"] == {"id": "x"}


def test_a_message_that_was_rescued_says_so() -> None:
    message = unpack(entry(b"r", b"1", b"n", b"2"), "s|1-0")
    assert message["headers"] == {"redelivered": True, "x-delivery-count": 2}
    assert message["properties"]["delivery_info"]["redelivered"] is True


def test_a_copy_does_not_carry_what_was_said_of_the_first() -> None:
    sent_on = entry(headers={"id": "x", "redelivered": True, "x-delivery-count": 2})
    assert unpack(sent_on, "s|1-0")["headers"] == {"id": "x"}


def test_what_a_stock_worker_gave_back_is_still_told() -> None:
    message = {"headers": {"redelivered": True}, "properties": {"delivery_info": {"redelivered": True}}}
    told = unpack([b"m", json.dumps(message).encode()], "s|1-0")
    assert told["headers"]["redelivered"] is True
    assert told["properties"]["delivery_info"]["redelivered"] is True


def test_kombus_own_types_in_headers_are_read() -> None:
    marked = {"at": {"__type__": "datetime", "__value__": "2024-05-01T10:00:00+00:00"}}
    assert unpack(entry(headers=marked), "s|1-0")["headers"]["at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)


def message_of(body: str, **more: Any) -> Message:
    """A message with this body, as a channel makes it."""
    channel = SimpleNamespace(decode_body=lambda text, encoding: text)
    payload = {
        "body": body, "content-type": "application/json", "content-encoding": "utf-8", "headers": {},
        "properties": {"delivery_tag": "s|1-0", "delivery_info": {}}, **more,
    }  # fmt: skip
    return Message(payload, channel=channel)


def test_a_body_is_decoded_as_kombu_does() -> None:
    assert message_of('[["é"], {}, {}]').payload == [["é"], {}, {}]
    assert message_of("[NaN]").payload[0] != message_of("[NaN]").payload[0]
    marked = '[{"__type__": "datetime", "__value__": "2024-05-01T10:00:00+00:00"}]'
    assert message_of(marked).payload == [datetime(2024, 5, 1, 10, tzinfo=UTC)]
    with pytest.raises(DecodeError):
        message_of("[").decode()
    refusing = message_of("[]")
    refusing.accept = {"application/x-yaml"}
    with pytest.raises(ContentDisallowed):
        refusing.decode()


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"m", b"no JSON"],
        [b"m", b"3"],
        [b"m", b"{}"],
        [b"m", b'{"properties": {"delivery_info": []}}'],
        [b"x", b"y"],
    ],
)
def test_what_is_no_message(fields: list[bytes]) -> None:
    with pytest.raises(NotAMessage):
        unpack(fields, "s|1-0")


def test_a_time_delays() -> None:
    """Whether it is to come is for the server to say, by its clock."""
    now = datetime.now(UTC)
    for at in (now - timedelta(hours=1), now, now + timedelta(hours=1)):
        assert due_ms(at.isoformat()) == due_ms(at) == math.ceil(at.timestamp() * 1000)
    assert due_ms("2033-05-18T03:33:20.0001") == 2_000_000_000_001, "never early, by no part of a millisecond"
    assert due_ms("tomorrow") == due_ms(None) == due_ms(17) == 0


def test_what_is_delivered_is_due_whatever_this_clock_says() -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    ours = entry(headers={"eta": ahead, "errands": {}})
    was_delayed = [*entry(headers={"eta": ahead}), b"d", b"1"]
    for fields in (ours, was_delayed):
        message = unpack(fields, "s|1-0")
        assert datetime.fromisoformat(message["headers"]["eta"]) <= datetime.now(UTC)
        assert "redelivered" not in message["properties"]["delivery_info"]
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert unpack(entry(headers={"eta": past, "errands": {}}), "s|1-0")["headers"]["eta"] == past


def test_what_others_wrote_into_the_stream_too_early_is_put_off() -> None:
    fields = entry(headers={"eta": "2033-05-18T03:33:20Z", "id": "r"})
    with pytest.raises(NotDue) as caught:
        unpack(fields, "s|1999999999999-0")
    assert (caught.value.due_ms, caught.value.run_id) == (2_000_000_000_000, "r")
    assert unpack(fields, "s|2000000000000-0")["headers"]["id"] == "r"


def test_only_what_is_acknowledged_before_it_ran_is_urgent() -> None:
    told: list[tuple[str, bool]] = []
    holdings = SimpleNamespace(acknowledge=lambda tag, urgent=False: told.append((tag, urgent)))
    qos = QoS(SimpleNamespace(holdings=holdings, do_restore=False))
    for name in ("runs", "has ended"):
        qos.append(SimpleNamespace(headers={"id": name}), name)
    worker_state.requests["runs"] = object()
    try:
        qos.ack("runs")
        qos.ack("has ended")
    finally:
        del worker_state.requests["runs"]
    assert told == [("runs", True), ("has ended", False)]


def test_options_know_their_hook_by_name() -> None:
    assert Options.of({"on_dead_letter": "json:dumps", "socket_timeout": 3}).hook is json.dumps
    assert Options.of({}).hook is None


class Ledger:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


def test_a_dead_letter_of_a_run_ends_the_run() -> None:
    ledger = Ledger()
    message = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "headers": {"id": "run-1", "task": "add"},
        "content-type": "application/json",
        "properties": {"body_encoding": "base64"},
    }
    recorder(lambda: ledger)("letters", json.dumps(message).encode(), "why")
    dead, failed = ledger.events
    assert (dead.kind, dead.run_id, dead.queue, dead.task) == (Kind.DEAD_LETTER, "run-1", "letters", "add")
    assert dead.note == "why"
    assert dead.message is not None
    assert base64.b64decode(dead.message["body"]) == b"[[], {}, {}]"
    assert (failed.kind, failed.run_id) == (Kind.FAILED, "run-1")


def test_a_dead_letter_that_is_no_message_is_the_same_one_each_time() -> None:
    ledger = Ledger()
    record = recorder(lambda: ledger)
    record("letters", b"\xff", "why")
    record("letters", b"\xff", "why")
    first, again = ledger.events
    assert first.run_id == again.run_id
    assert first.message is not None
    assert base64.b64decode(first.message["body"]) == b"\xff"
