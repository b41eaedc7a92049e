"""Server-sent events, as the HTML standard (section 9.2) writes them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Protocol

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from errands.doors.fastapi.route import NO_STORE
from errands.ops.watch import Message

_HEADERS = NO_STORE | {
    "X-Accel-Buffering": "no",  # nginx would keep events back until it has a page of them
    "X-Content-Type-Options": "nosniff",
}
_LINE_END = re.compile("\r\n|\r|\n")
_FIRST_RECONNECT = 2.0


def encode(message: Message) -> bytes:
    """One message in the stream. An empty one becomes a comment, which keeps the connection open."""
    lines = []
    if message.reconnect is not None:
        lines.append(f"retry: {int(message.reconnect * 1000)}")
    if message.id is not None:
        lines.append(f"id: {_one_line(message.id)}")
    if message.event is not None:
        lines.append(f"event: {_one_line(message.event)}")
    if message.data is not None:
        lines += [f"data: {line}" for line in _LINE_END.split(json.dumps(message.data))]
    return ("\n".join(lines or [": still here"]) + "\n\n").encode()


class Messages(Protocol):
    """What tells messages until there are no more, or until it is closed; a `Watch`, for example."""

    def __aiter__(self) -> AsyncIterator[Message]: ...

    def close(self) -> None: ...


class EventResponse(StreamingResponse):
    """Sends messages, and closes what tells them, however the connection ends."""

    def __init__(self, watch: Messages) -> None:
        self._watch = watch
        super().__init__(_encoded(watch), media_type="text/event-stream", headers=_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watch.close()


async def _encoded(watch: Messages) -> AsyncIterator[bytes]:
    yield encode(Message(reconnect=_FIRST_RECONNECT))
    async for message in watch:
        yield encode(message)


def _one_line(text: str) -> str:
    return _LINE_END.sub(" ", text).replace("\0", "")
