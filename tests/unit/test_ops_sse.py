"""Server-sent events on the wire."""

from __future__ import annotations

import pytest

from errands.doors.fastapi.sse import encode
from errands.ops.watch import Message


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Message(), ": still here\n\n"),
        (Message(reconnect=1.5), "retry: 1500\n\n"),
        (Message("state", {"a": 1}, "5-0"), 'id: 5-0\nevent: state\ndata: {"a": 1}\n\n'),
        (
            Message("log", {"text": "one\ntwo\r\n\r"}, "5-1"),
            'id: 5-1\nevent: log\ndata: {"text": "one\\ntwo\\r\\n\\r"}\n\n',
        ),
        (
            Message("log", {"text": "\u2028 ü"}, "5-2"),
            'id: 5-2\nevent: log\ndata: {"text": "\\u2028 \\u00fc"}\n\n',
        ),
        (Message("a\ndata: forged", {}, "1\n2\0"), "id: 1 2\nevent: a data: forged\ndata: {}\n\n"),
    ],
)
def test_messages_on_the_wire(message: Message, wire: str) -> None:
    assert encode(message) == wire.encode()
