"""A pusher for tests: it keeps what it is given."""

from __future__ import annotations

from dataclasses import dataclass

from errands.kits.push.devices import WEBPUSH, Device
from errands.kits.push.notice import PushMessage


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as it would have gone to one device."""

    device: Device
    message: PushMessage


class FakePush:
    """Keeps every message in `sent`; `fail_with` makes the next ones fail.

    Args:
        kind: of the devices that it is for.
    """

    def __init__(self, kind: str = WEBPUSH) -> None:
        self.kind = kind
        self.sent: list[Sent] = []
        self._failures: list[BaseException] = []

    def fail_with(self, error: BaseException, times: int = 1) -> None:
        """Let the next `times` calls of `send` raise `error`, such as `DeviceGone("gone")`."""
        self._failures += [error] * times

    def service(self, device: Device) -> str:
        return f"fake {self.kind}"

    async def send(self, device: Device, message: PushMessage) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.sent.append(Sent(device, message))

    async def aclose(self) -> None:
        """Nothing to give back."""
