"""What can go wrong with a webhook, told apart by whether it is tried again."""

from __future__ import annotations

from errands import Discard, ErrandsError


class WebhookError(ErrandsError):
    """The root of the webhook kit's errors."""


class WebhookFailed(WebhookError):
    """This attempt failed and another may succeed: a 5xx, a time-out, no connection, a redirect.

    `status` is the HTTP status, None where no answer came; `retry_after` the least wait in seconds that the
    receiver asked for, which the retry policy honours.
    """

    def __init__(self, text: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class WebhookRefused(WebhookError, Discard):
    """The receiver, or a rule of ours, said no for good. `status` is the HTTP status, if there was one."""

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class WebhookGone(WebhookRefused):
    """The receiver answered 410 Gone: its endpoint has been disabled."""


class DuplicateEndpoint(WebhookError, ValueError):
    """An endpoint with this address is registered already."""


class UnknownEndpoint(WebhookError, LookupError):
    """There is no endpoint with this id."""


class UnknownDelivery(WebhookError, Discard, LookupError):
    """No attempt with this id is on record, or not what was sent in it."""


class InvalidSignature(WebhookError, ValueError):
    """A received webhook is not signed with any of the secrets, is too old, or lacks its headers."""


class InvalidSecret(WebhookError, ValueError):
    """A webhook secret is not of the form that Standard Webhooks wants."""
