"""A mailer for tests: it keeps what it is given."""

from __future__ import annotations

from errands.kits.mail.message import Message
from errands.kits.mail.provider import Receipt


class FakeMailer:
    """Keeps every message in `outbox`; `fail_with` makes the next ones fail."""

    def __init__(self, sender: str = "Errands <errands@example.com>") -> None:
        self.outbox: list[Message] = []
        self._sender = sender
        self._failures: list[BaseException] = []

    def fail_with(self, error: BaseException, times: int = 1) -> None:
        """Let the next `times` calls of `send` raise `error`."""
        self._failures += [error] * times

    async def send(self, message: Message) -> Receipt:
        # Built like the real ones build it, so that what they refuse is refused here too.
        message_id = str(message.build(self._sender)["Message-ID"])
        if self._failures:
            raise self._failures.pop(0)
        self.outbox.append(message)
        return Receipt(message_id, "250 kept")

    async def aclose(self) -> None:
        """Nothing to give back."""
