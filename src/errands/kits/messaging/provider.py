"""What is sent, and who sends it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from errands.kits.messaging.errors import InvalidMessage

LONGEST_TEXT = 1000  # characters


@dataclass(frozen=True, slots=True)
class Text:
    """Plain words: 1 to 1,000 characters.

    Raises:
        InvalidMessage: fewer or more of them, or nothing but white space.
    """

    body: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.body) <= LONGEST_TEXT or not self.body.strip():
            raise InvalidMessage(f"a message has 1 to {LONGEST_TEXT:,} characters, not {len(self.body):,}")


@dataclass(frozen=True, slots=True)
class Template:
    """A text that the provider has approved, and what is filled in.

    Args:
        name: as the provider knows it: a template's name at WhatsApp, a Content SID (`HX…`) at Twilio.
        values: in the order of the template's places, or by their names.
        language: of the template, as the provider writes it: "en", "en_US".
    """

    name: str
    values: Sequence[str] | Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    language: str = "en"

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 512 or not self.name.isprintable():
            raise InvalidMessage("a template has a name of 1 to 512 printable characters")

    def named(self) -> dict[str, str]:
        """The values by name; "1", "2" … where they have only an order."""
        if isinstance(self.values, Mapping):
            return {str(name): str(value) for name, value in self.values.items()}
        return {str(number): str(value) for number, value in enumerate(self.values, start=1)}


Content = Text | Template


@dataclass(frozen=True, slots=True)
class Receipt:
    """That the provider took a message over: `id` is what it calls it."""

    id: str


class Messenger(Protocol):
    """Sends one message at a time. Ask for it in a task's signature: `*, messenger: Messenger`."""

    async def send(self, to: str, content: Content) -> Receipt:
        """Hand a message over to the provider.

        Args:
            to: a number in E.164.
            content: what to send.

        Raises:
            TemporaryMessageError: not taken now; sending again is safe. `ProviderUnavailable` where that is
                so for any recipient.
            PermanentMessageError: never taken as it is. `ProviderRefused` where that is so for any recipient,
                `RecipientOptedOut` where they asked for it.
            UnknownOutcomeError: nobody can say whether it was taken.
        """
        ...

    async def aclose(self) -> None:
        """Give connections back. May be called more than once; a later `send` opens them again."""
        ...
