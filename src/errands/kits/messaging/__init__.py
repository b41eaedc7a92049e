"""Messages to phones: one text or template each to one or many, by WhatsApp, by Twilio, or into a file.

`app.use(messaging.kit(tasks=True))`, then `app.tasks["send_bulk_messages"].delay(["+49…"], "Closed today")`.
"""

from errands.kits.messaging.bulk import BulkMessages, To
from errands.kits.messaging.console import ConsoleMessenger
from errands.kits.messaging.errors import (
    InvalidMessage,
    InvalidNumber,
    MessagingError,
    PermanentMessageError,
    ProviderRefused,
    ProviderUnavailable,
    RecipientOptedOut,
    TemporaryMessageError,
    UnknownOutcomeError,
)
from errands.kits.messaging.fake import FakeMessenger
from errands.kits.messaging.kit import MessagingKit, kit
from errands.kits.messaging.numbers import normalised
from errands.kits.messaging.provider import Content, Messenger, Receipt, Template, Text
from errands.kits.messaging.tasks import BulkRequest, MessageText, Number, Numbers
from errands.kits.messaging.twilio import TwilioMessenger
from errands.kits.messaging.whatsapp import WhatsAppMessenger

__all__ = [
    "BulkMessages",
    "BulkRequest",
    "ConsoleMessenger",
    "Content",
    "FakeMessenger",
    "InvalidMessage",
    "InvalidNumber",
    "MessageText",
    "MessagingError",
    "MessagingKit",
    "Messenger",
    "Number",
    "Numbers",
    "PermanentMessageError",
    "ProviderRefused",
    "ProviderUnavailable",
    "Receipt",
    "RecipientOptedOut",
    "Template",
    "TemporaryMessageError",
    "Text",
    "To",
    "TwilioMessenger",
    "UnknownOutcomeError",
    "WhatsAppMessenger",
    "kit",
    "normalised",
]
