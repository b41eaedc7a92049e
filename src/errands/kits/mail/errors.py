"""What can go wrong with a mail, told apart by whether it may be sent again."""

from __future__ import annotations

from errands import Discard, ErrandsError, OutcomeUnknown


class MailError(ErrandsError):
    """The root of the mail kit's errors."""


class TemporaryMailError(MailError):
    """The mail was not accepted now and may be sent again: SMTP 4xx, no connection, a time-out before the
    content was sent, HTTP 5xx or 429."""


class ServerUnavailable(TemporaryMailError):
    """The server takes no mail now, whoever it is for: no connection, HTTP 429 or 503.

    Attributes:
        retry_after: seconds that the server asks to wait; None where it does not say.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(text)


class PermanentMailError(MailError, Discard):
    """The mail will never be accepted as it is; its run ends without another try: SMTP 5xx, HTTP 4xx."""


class ServerRefused(PermanentMailError):
    """The server takes no mail from us, whoever it is for: the sign-in, the sender or the certificate is not
    right, or it lacks what was asked of it. Somebody has to change the settings."""


class InvalidMessage(PermanentMailError, ValueError):
    """The message itself is wrong: a line break in a header, something that is no address."""


class UnknownOutcomeError(MailError, OutcomeUnknown):
    """The content was sent and no answer came: it may or may not have been accepted.

    Sending again could put the same mail in the box twice, so its run ends here and a person decides.
    """


class TemplateError(MailError, Discard):
    """A template is missing, wrong, or was given too few values."""
