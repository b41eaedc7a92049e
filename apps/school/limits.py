"""No request body larger than it need be: the school takes JSON, and files in few places only."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1024 * 1024


class BodyLimit:
    """Answers 413 to a larger body, before it is read where its length is told, else while it is read.

    Args:
        app: what is asked inside.
        most: bytes.
        larger: more bytes, for the paths that take files.
    """

    def __init__(self, app: ASGIApp, most: int = MOST_BYTES, larger: Mapping[str, int] | None = None) -> None:
        self.app = app
        self.most = most
        self.larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = self.larger.get(scope["path"], self.most)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(send, most)
            return
        read = 0
        answered = False

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > most:
                raise _TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, limited, noted)
        except _TooLarge:
            if not answered:
                await _refuse(send, most)


class _TooLarge(BaseException):
    """Not an Exception: nobody on the way should take it for a mistake in the body."""


async def _refuse(send: Send, most: int) -> None:
    body = b'{"detail":"The request is too large; %d MiB is the most."}' % (most // MOST_BYTES)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})
