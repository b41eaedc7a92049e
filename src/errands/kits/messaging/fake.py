"""A messenger for tests: it keeps what it is given."""

from __future__ import annotations

from errands.kits.messaging.provider import Content, Receipt


class FakeMessenger:
    """Keeps every message in `outbox`, as (number, content); `fail_with` makes the next ones fail."""

    def __init__(self) -> None:
        self.outbox: list[tuple[str, Content]] = []
        self._failures: list[BaseException] = []

    def fail_with(self, error: BaseException, times: int = 1) -> None:
        """Let the next `times` calls of `send` raise `error`."""
        self._failures += [error] * times

    async def send(self, to: str, content: Content) -> Receipt:
        if self._failures:
            raise self._failures.pop(0)
        self.outbox.append((to, content))
        return Receipt(f"fake-{len(self.outbox)}")

    async def aclose(self) -> None:
        """Nothing to give back."""
