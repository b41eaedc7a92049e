"""The seam between those who send mail and those who carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from errands.kits.mail.message import Message


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a mail was taken over by the next server: `message_id` as sent, `answer` in the server's words."""

    message_id: str
    answer: str


class Mailer(Protocol):
    """Sends one mail at a time. Ask for it in a task's signature: `*, mailer: Mailer`."""

    async def send(self, message: Message) -> Receipt:
        """Hand `message` over to the next server.

        Raises:
            TemporaryMailError: not accepted now; sending again is safe.
            PermanentMailError: never accepted as it is.
            UnknownOutcomeError: nobody can say whether it was accepted.
        """
        ...

    async def aclose(self) -> None:
        """Give connections back. May be called more than once; a later `send` opens them again."""
        ...
