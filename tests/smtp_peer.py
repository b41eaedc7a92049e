"""An SMTP server whose answers a test chooses by recipient; it keeps what it accepts."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP

DROP = "drop"  # the connection, in place of an answer
SILENT = "silent"  # no answer, and the connection stays


class Peer:
    """Attributes:
    at_rcpt, at_data: answers by recipient: "450 busy", `DROP`, `SILENT`; a list is used up one by one.
    """

    def __init__(self) -> None:
        self.port = 0
        self.at_rcpt: dict[str, str | list[str]] = {}
        self.at_data: dict[str, str | list[str]] = {}
        self.mails: list[tuple[str, EmailMessage]] = []
        self.asked: list[str] = []  # recipients, as often as they were named
        self.connections = 0
        self._never = asyncio.Event()

    def to(self, address: str) -> list[EmailMessage]:
        """The mails that were accepted for `address`."""
        return [mail for recipient, mail in self.mails if recipient == address]

    async def _answer(self, answers: dict[str, str | list[str]], address: str, session: _Session) -> str:
        answer = answers.get(address, "250 ok")
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else "250 ok"
        if answer == SILENT:
            await self._never.wait()
        if answer == DROP:
            session.transport.abort()
            return "250 nobody reads this"
        return answer

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        self.asked.append(address)
        answer = await self._answer(self.at_rcpt, address, server)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        (address,) = envelope.rcpt_tos
        answer = await self._answer(self.at_data, address, server)
        if answer.startswith("250 ok"):
            parsed: Any = email.message_from_bytes(envelope.content, policy=email.policy.default)
            self.mails.append((address, parsed))
        return answer


class _Session(SMTP):
    def __init__(self, peer: Peer) -> None:
        super().__init__(peer, hostname="mx.example.com", enable_SMTPUTF8=True)
        self.peer = peer

    def connection_made(self, transport: Any) -> None:
        self.peer.connections += 1
        super().connection_made(transport)


@asynccontextmanager
async def serving() -> AsyncIterator[Peer]:
    peer = Peer()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: _Session(peer), "127.0.0.1", 0)
    peer.port = listener.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        listener.close()
        peer._never.set()
