"""What can go wrong with a notification, told apart by whether it is sent again."""

from __future__ import annotations

from errands import Discard, ErrandsError, OutcomeUnknown


class PushError(ErrandsError):
    """The root of the push kit's errors."""


class PushFailed(PushError):
    """Not taken now; another attempt may succeed: a quota, a 5xx, no connection.

    `retry_after` is the least wait in seconds that the service asked for, which the retry policy honours.
    `pause` says that the service asked for peace: whatever else is for it waits as well.
    """

    def __init__(self, text: str, *, retry_after: float | None = None, pause: bool = False) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        self.pause = pause


class PushRefused(PushError, Discard):
    """The service said no to this message for good: it is malformed or too large, or the keys are wrong."""


class DeviceGone(PushRefused):
    """The device's token or subscription does not stand for anything any more; it is removed."""


class PushUnknown(PushError, OutcomeUnknown):
    """The message was sent and no answer came: it may or may not have been taken. It is not sent again."""


class InvalidNotice(PushError, Discard, ValueError):
    """A notification cannot be made of this: an empty title, too much data."""


class InvalidDevice(PushError, ValueError):
    """This is no Web Push subscription and no FCM token that could be sent to."""


class NotificationNotFound(PushError, LookupError):
    """The user has no such notification."""


class DeviceNotFound(PushError, LookupError):
    """The user has no such device."""
