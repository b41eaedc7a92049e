"""What can go wrong with a fetch, told apart by whether another attempt may help."""

from __future__ import annotations

from errands.core.errors import Discard, ErrandsError


class FetchError(ErrandsError):
    """The root of the errors of fetching."""


class FetchFailed(FetchError):
    """This attempt failed and another may succeed: a 5xx, a time-out, no connection, a name not found now.

    `status` is the HTTP status, None where no answer came; `retry_after` the least wait in seconds that the
    server asked for, which the retry policy honours.
    """

    def __init__(self, text: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class FetchRefused(FetchError, Discard):
    """The server, or a rule of ours, said no for good. `status` is the HTTP status, if that was it."""

    def __init__(self, text: str, *, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class AddressRefused(FetchRefused, ValueError):
    """The address is one that must not be called: inside a network, malformed, or with credentials in it."""


class RedirectRefused(FetchRefused):
    """A redirect that is not followed: too many of them, to nowhere, or from https to http."""


class TooLarge(FetchRefused):
    """There is more than the limit allows, as it came or unpacked."""


class WrongType(FetchRefused):
    """The content is of a type that was not asked for, or not what its server says it is."""
