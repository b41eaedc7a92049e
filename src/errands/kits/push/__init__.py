"""Notifications: in the application at once and live, on devices when people may be disturbed.

`app.use(push.kit(tasks=True))`, then `app.tasks["send_push_notification"].delay(user_id, title, message)`;
or `*, notifier: Notifier, run: Run` in a task's signature, and `await notifier.send(run, users, Notice(…))`.
The endpoints for users are `errands.kits.push.fastapi.notifications_router`.
"""

from errands.kits.push.audience import Audience, SqlAudience
from errands.kits.push.boxes import Notification
from errands.kits.push.delivery import Push
from errands.kits.push.devices import Device, DeviceStore
from errands.kits.push.errors import (
    DeviceGone,
    DeviceNotFound,
    InvalidDevice,
    InvalidNotice,
    NotificationNotFound,
    PushError,
    PushFailed,
    PushRefused,
    PushUnknown,
)
from errands.kits.push.fake import FakePush
from errands.kits.push.fcm import FcmPush
from errands.kits.push.feed import Feed
from errands.kits.push.kit import RETRY, PushKit, kit
from errands.kits.push.notice import Notice, PushMessage
from errands.kits.push.notifier import Notifier, Outcome
from errands.kits.push.provider import Pusher
from errands.kits.push.quiet import QuietHours
from errands.kits.push.store import NotificationStore
from errands.kits.push.vapid import VapidKey, new_vapid_key
from errands.kits.push.webpush import WebPush

__all__ = [
    "RETRY",
    "Audience",
    "Device",
    "DeviceGone",
    "DeviceNotFound",
    "DeviceStore",
    "FakePush",
    "FcmPush",
    "Feed",
    "InvalidDevice",
    "InvalidNotice",
    "Notice",
    "Notification",
    "NotificationNotFound",
    "NotificationStore",
    "Notifier",
    "Outcome",
    "Push",
    "PushError",
    "PushFailed",
    "PushKit",
    "PushMessage",
    "PushRefused",
    "PushUnknown",
    "Pusher",
    "QuietHours",
    "SqlAudience",
    "VapidKey",
    "WebPush",
    "kit",
    "new_vapid_key",
]
