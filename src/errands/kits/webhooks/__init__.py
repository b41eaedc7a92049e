"""Webhooks: signed, addressed with care, tried again by what the receiver says, and kept on record.

`app.use(webhooks.kit())`, then `app.tasks["dispatch_webhooks_batch"].delay("course.completed", {...})`.
Receivers check what they got with `verify`.
"""

from errands.fetching import AddressRefused, Guard, GuardedTransport
from errands.kits.webhooks.actions import Webhooks
from errands.kits.webhooks.errors import (
    DuplicateEndpoint,
    InvalidSecret,
    InvalidSignature,
    UnknownDelivery,
    UnknownEndpoint,
    WebhookError,
    WebhookFailed,
    WebhookGone,
    WebhookRefused,
)
from errands.kits.webhooks.fake import FakeSender
from errands.kits.webhooks.kit import WebhooksKit, kit
from errands.kits.webhooks.provider import HttpSender, Reply, Sender
from errands.kits.webhooks.records import Delivery, Disabling
from errands.kits.webhooks.signing import new_secret, verify
from errands.kits.webhooks.store import Endpoint, WebhookStore

__all__ = [
    "AddressRefused",
    "Delivery",
    "Disabling",
    "DuplicateEndpoint",
    "Endpoint",
    "FakeSender",
    "Guard",
    "GuardedTransport",
    "HttpSender",
    "InvalidSecret",
    "InvalidSignature",
    "Reply",
    "Sender",
    "UnknownDelivery",
    "UnknownEndpoint",
    "WebhookError",
    "WebhookFailed",
    "WebhookGone",
    "WebhookRefused",
    "WebhookStore",
    "Webhooks",
    "WebhooksKit",
    "kit",
    "new_secret",
    "verify",
]
