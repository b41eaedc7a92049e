"""Webhooks: signed, addressed with care, tried again by what the receiver says, and kept on record.

`app.use(webhooks.kit())`, then `app.tasks["dispatch_webhooks_batch"].delay("course.completed", {...})`.
Receivers check what they got with `verify`.
"""

from errands.kits.webhooks.addresses import Guard, GuardedTransport
from errands.kits.webhooks.errors import (
    AddressRefused,
    DuplicateEndpoint,
    InvalidSecret,
    InvalidSignature,
    UnknownEndpoint,
    WebhookError,
    WebhookFailed,
    WebhookGone,
    WebhookRefused,
)
from errands.kits.webhooks.fake import FakeSender
from errands.kits.webhooks.kit import WebhooksKit, kit
from errands.kits.webhooks.provider import HttpSender, Reply, Sender
from errands.kits.webhooks.signing import new_secret, verify
from errands.kits.webhooks.store import Delivery, Endpoint, WebhookStore

__all__ = [
    "AddressRefused",
    "Delivery",
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
    "UnknownEndpoint",
    "WebhookError",
    "WebhookFailed",
    "WebhookGone",
    "WebhookRefused",
    "WebhookStore",
    "WebhooksKit",
    "kit",
    "new_secret",
    "verify",
]
