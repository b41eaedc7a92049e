"""Whether a message came in the moment of its sending, by the server's clock and a worker's own."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from errands.broker.streams import message, moment
from errands.broker.streams.moment import MOMENT, Look, ends
from errands.core import clock

# Sent at 100 s of the worker's clock; the server's said 5 s then.
LOOK = Look(100.0, 5_000_000)


def test_the_moment_ends_a_while_after_the_sending() -> None:
    assert ends(LOOK, "5500-0", 100.501) == pytest.approx(100.5 + MOMENT)
    assert ends(LOOK, "5500-3", 103.0) == pytest.approx(100.5 + MOMENT)  # it is over: the caller looks


def test_what_lies_in_the_future_is_in_no_moment() -> None:
    """The server's clock was set forward between the two."""
    assert ends(LOOK, "3605500-0", 100.501) == 0.0


def test_a_worker_whose_lease_may_have_ended_is_in_no_moment() -> None:
    """It may have stood still, and others have taken what it was given."""
    assert ends(LOOK, "9999-0", 104.999) > 0
    assert ends(LOOK, "10001-0", 105.001) == 0.0


def test_a_marked_entry_was_not_delivered_before() -> None:
    envelope = b'{"body":"","headers":{},"properties":{"delivery_info":{}}}'
    tag = "errands:q:work:normal|1-0"
    for fields, redelivered in (
        ([b"m", envelope, b"f", b"1"], False),
        ([b"m", envelope, b"r", b"1"], True),
        ([b"m", envelope, b"r", b"1", b"n", b"1"], True),
    ):
        found = message.unpack(fields, tag)["properties"]["delivery_info"]
        assert found.get("redelivered", False) is redelivered
        assert moment.is_marked(fields) is not redelivered


@pytest.mark.parametrize(("ago", "waits"), [(0.0, True), (-3600.0, True), (2.0, False), (None, True)])
def test_who_revokes_lets_the_moment_pass(
    monkeypatch: pytest.MonkeyPatch, ago: float | None, *, waits: bool
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with clock.use(clock.FakeClock(datetime(2026, 1, 1, tzinfo=UTC))):
        moment.let_pass(None if ago is None else clock.timestamp() - ago)
    assert bool(waited) is waits
    assert all(seconds > MOMENT for seconds in waited)
