"""Mail by a Firebase Cloud Function: one HTTP POST of JSON for each mail."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx

from errands.core import retry_after
from errands.kits.mail.errors import (
    PermanentMailError,
    ServerRefused,
    ServerUnavailable,
    TemporaryMailError,
)
from errands.kits.mail.message import Message
from errands.kits.mail.provider import Receipt

_NOT_REACHED = (httpx.ConnectError, httpx.ConnectTimeout)


class FirebaseMailer:
    """Posts each mail to a function that sends it.

    The body is `{"to": [...], "from", "replyTo", "subject", "text", "html", "headers", "messageId",
    "attachments": [{"filename", "contentType", "content" (base64)}]}`; the header `Idempotency-Key` repeats
    the message id, by which the function can know a mail that is posted a second time.

    Args:
        url: the function's address (FIREBASE_FUNCTIONS_URL).
        sender: whom mail is from that names no sender itself.
        timeout: seconds for one POST.
        client: a client of your own, for a proxy or an identity token; it is not closed here.
    """

    def __init__(
        self,
        url: str,
        *,
        sender: str | None = None,
        timeout: float = 30.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = url
        self._sender = sender
        self._timeout = timeout
        self._given = client
        self._own: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, message: Message) -> Receipt:
        mail = message.build(self._sender)
        message_id = str(mail["Message-ID"])
        body: dict[str, Any] = {
            "to": [str(address) for address in mail["To"].addresses],
            "from": str(mail["From"]),
            "replyTo": message.reply_to,
            "subject": message.subject,
            "text": message.text,
            "html": message.html,
            "headers": dict(message.headers),
            "messageId": message_id,
            "attachments": [
                {
                    "filename": attachment.filename,
                    "contentType": attachment.content_type,
                    "content": base64.b64encode(attachment.data).decode(),
                }
                for attachment in message.attachments
            ],
        }
        try:
            response = await self._client().post(
                self._url, json=body, headers={"Idempotency-Key": message_id}, timeout=self._timeout
            )
        except httpx.InvalidURL as exc:
            raise PermanentMailError(f"FIREBASE_FUNCTIONS_URL is no address: {exc}") from exc
        except httpx.HTTPError as exc:
            gone = ServerUnavailable if isinstance(exc, _NOT_REACHED) else TemporaryMailError
            raise gone(f"the mail function did not answer: {type(exc).__name__} {exc}".rstrip()) from exc
        answer = f"{response.status_code} {response.text[:200]}".rstrip()
        if response.is_success:
            return Receipt(message_id, answer)
        if response.status_code in (429, 503):
            wait = retry_after.seconds(response.headers.get("retry-after"))
            raise ServerUnavailable(f"the mail function answered {answer}", wait)
        if response.status_code in (401, 403):
            raise ServerRefused(f"the mail function lets nobody in: {answer}")
        if response.status_code >= 500:
            raise TemporaryMailError(f"the mail function answered {answer}")
        raise PermanentMailError(f"the mail function refused the mail: {answer}")

    async def aclose(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            await own.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._given is not None:
            return self._given
        # Kept connections belong to the event loop that opened them.
        loop = asyncio.get_running_loop()
        if self._own is None or self._loop is not loop:
            self._own, self._loop = httpx.AsyncClient(), loop
        return self._own
