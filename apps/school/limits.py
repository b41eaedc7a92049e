"""No request body larger than it need be: the school takes JSON, and no files yet."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 1024 * 1024


class BodyLimit:
    """Answers 413 to a larger body, before it is read where its length is told, else while it is read."""

    def __init__(self, app: ASGIApp, most: int = MOST_BYTES) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.most:
            await _refuse(send)
            return
        read = 0
        answered = False

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
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
                await _refuse(send)


class _TooLarge(BaseException):
    """Not an Exception: nobody on the way should take it for a mistake in the body."""


async def _refuse(send: Send) -> None:
    body = b'{"detail":"The request is too large; 1 MiB is the most."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": 413, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})
