"""Mail: by SMTP over connections that are kept, or by a Firebase function; written from templates.

`app.use(mail.kit(templates="mails"))`, then `*, mailer: Mailer, templates: Templates` in a task's signature.
"""

from errands.kits.mail.attachments import Attachments, Stored
from errands.kits.mail.bulk import BulkMail, To, same_address
from errands.kits.mail.errors import (
    InvalidMessage,
    MailError,
    PermanentMailError,
    ServerRefused,
    ServerUnavailable,
    TemplateError,
    TemporaryMailError,
    UnknownOutcomeError,
)
from errands.kits.mail.fake import FakeMailer
from errands.kits.mail.firebase import FirebaseMailer
from errands.kits.mail.kit import MailKit, kit
from errands.kits.mail.message import Attachment, Message, stable_message_id
from errands.kits.mail.once import send_once
from errands.kits.mail.provider import Mailer, Receipt
from errands.kits.mail.smtp import SmtpMailer
from errands.kits.mail.templates import Rendered, Templates
from errands.kits.mail.unsubscribe import InvalidLink, Unsubscribe

__all__ = [
    "Attachment",
    "Attachments",
    "BulkMail",
    "FakeMailer",
    "FirebaseMailer",
    "InvalidLink",
    "InvalidMessage",
    "MailError",
    "MailKit",
    "Mailer",
    "Message",
    "PermanentMailError",
    "Receipt",
    "Rendered",
    "ServerRefused",
    "ServerUnavailable",
    "SmtpMailer",
    "Stored",
    "TemplateError",
    "Templates",
    "TemporaryMailError",
    "To",
    "UnknownOutcomeError",
    "Unsubscribe",
    "kit",
    "same_address",
    "send_once",
    "stable_message_id",
]
