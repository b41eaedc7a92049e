"""What can go wrong with a message, told apart by whether it may be sent again, and by whose fault it was."""

from __future__ import annotations

from errands import Discard, ErrandsError, OutcomeUnknown


class MessagingError(ErrandsError):
    """The root of the messaging kit's errors."""


class TemporaryMessageError(MessagingError):
    """Not sent now; may be sent again.

    Attributes:
        retry_after: seconds that the provider asks to wait; None where it does not say.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class ProviderUnavailable(TemporaryMessageError):
    """The provider takes no message now, whoever it is for: it is away, or we send too fast."""


class PermanentMessageError(MessagingError, Discard):
    """This message will never be taken for this recipient; its run ends without another try."""


class ProviderRefused(PermanentMessageError):
    """The provider takes no message from us, whoever it is for: token, account or sender are not right.
    Somebody has to change the settings."""


class RecipientOptedOut(PermanentMessageError):
    """The recipient told the provider that they want nothing from us."""


class InvalidNumber(PermanentMessageError, ValueError):
    """This is no phone number that can be called from anywhere."""


class InvalidMessage(PermanentMessageError, ValueError):
    """The message itself is wrong: empty, too long, a template without a name."""


class UnknownOutcomeError(MessagingError, OutcomeUnknown):
    """The provider was sent the message, and nobody can say whether it took it. It is not sent again by
    itself: the recipient could get it twice."""
