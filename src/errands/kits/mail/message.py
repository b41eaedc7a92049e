"""A mail as a value, and its form on the wire (RFC 5322, RFC 2045)."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage, MIMEPart
from email.utils import format_datetime, make_msgid
from types import MappingProxyType

from errands.core import clock
from errands.kits.mail.errors import InvalidMessage
from errands.kits.mail.policy import MailPolicy

# Not every server takes 8-bit lines; 7-bit passes everywhere.
POLICY = MailPolicy(linesep="\r\n", cte_type="7bit")

_LONGEST_LINE = 998  # RFC 5322, 2.1.1
_MAILBOX = re.compile(r"""(?:(?P<name>[^<>]*)<(?P<angled>[^<>]*)>|(?P<bare>[^<>]*))""", re.DOTALL)
_SPEC = re.compile(r"""[^\s<>()\[\]\\,;:"@]{1,64}@[^\s<>()\[\]\\,;:"@]{1,190}""")
_DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,76}")
_MESSAGE_ID = re.compile(r"<[^\s<>@]{1,200}@[^\s<>@]{1,200}>", re.ASCII)
# Those the message makes itself from its own fields.
_OWN = frozenset(
    {"to", "cc", "bcc", "from", "sender", "reply-to", "subject", "date", "message-id", "mime-version"}
    | {"content-type", "content-transfer-encoding", "content-disposition"}
)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a mail: its name, its media type ("application/pdf"), its bytes."""

    filename: str
    content_type: str
    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _one_line("attachment name", self.filename)
        if not self.filename or not _TYPE.fullmatch(self.content_type):
            raise InvalidMessage(
                f"attachment {self.filename!r} of type {self.content_type!r}: "
                "it needs a name, and a type such as application/pdf"
            )


@dataclass(frozen=True, slots=True)
class Message:
    """One mail. Checked when it is made.

    Args:
        to: an address, or several: `ann@example.com` or `Ann Lee <ann@example.com>`, in any script.
        subject: one line, in any script.
        text: the plain text; every mail has one.
        html: the same as HTML, if wanted.
        sender: whom it is from; None takes the mailer's own (MAIL_FROM).
        reply_to: where answers go, if not to the sender.
        headers: further headers, such as `List-Unsubscribe`.
        attachments: files to go with it.
        message_id: `<…@…>`; give one made by `stable_message_id` so that a mail that is sent again after a
            failure is known as the same one. None makes a new one.

    Raises:
        InvalidMessage: a line break in a header, something that is no address, a header that is not free.
    """

    to: str | Sequence[str]
    subject: str
    text: str
    html: str | None = None
    sender: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    attachments: tuple[Attachment, ...] = ()
    message_id: str | None = None

    def __post_init__(self) -> None:
        if not self.recipients:
            raise InvalidMessage("a mail needs at least one recipient")
        for address in (*self.recipients, self.sender, self.reply_to):
            if address is not None:
                parse_address(address)
        _one_line("Subject", self.subject)
        for name, value in self.headers.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OWN:
                raise InvalidMessage(f"header {name!r} cannot be set: it is no header name, or has a field")
            _one_line(name, value)
        if self.message_id is not None and not _MESSAGE_ID.fullmatch(self.message_id):
            raise InvalidMessage(f"message_id {self.message_id!r} must look like <something@example.com>")
        for part, body in (("text", self.text), ("html", self.html or "")):
            if any(unicodedata.category(c) == "Cs" for c in body):
                raise InvalidMessage(f"the {part} holds half a character (a lone surrogate)")

    @property
    def recipients(self) -> tuple[str, ...]:
        """`to`, always as a tuple."""
        return (self.to,) if isinstance(self.to, str) else tuple(self.to)

    def build(self, default_sender: str | None = None) -> EmailMessage:
        """The message as the standard library has it, with Date and Message-ID.

        Raises:
            InvalidMessage: there is no sender, neither here nor in `default_sender`.
        """
        sender = self.sender or default_sender
        if not sender:
            raise InvalidMessage("this mail has no sender: set MAIL_FROM, or give Message(sender=…)")
        from_address = parse_address(sender)
        mail = EmailMessage(POLICY)
        mail["From"] = _written([from_address])
        mail["To"] = _written([parse_address(address) for address in self.recipients])
        if self.reply_to:
            mail["Reply-To"] = _written([parse_address(self.reply_to)])
        mail["Subject"] = self.subject
        mail["Date"] = format_datetime(clock.now())
        mail["Message-ID"] = self.message_id or make_msgid(domain=from_address.domain)
        if not any(name.lower() == "auto-submitted" for name in self.headers):
            # RFC 3834: keeps holiday notices from answering a machine.
            mail["Auto-Submitted"] = "auto-generated"
        for name, value in self.headers.items():
            mail[name] = value
        if self.html is None:
            _fill(mail, self.text, "plain")
        else:
            mail["MIME-Version"] = "1.0"
            mail["Content-Type"] = f'multipart/alternative; boundary="{_boundary()}"'
            for subtype, body in (("plain", self.text), ("html", self.html)):
                part = MIMEPart(POLICY)
                _fill(part, body, subtype)
                mail.attach(part)  # type: ignore[arg-type]
        if self.attachments:
            mail.make_mixed(boundary=_boundary())
        for attachment in self.attachments:
            maintype, _, subtype = attachment.content_type.partition("/")
            mail.add_attachment(
                attachment.data, maintype=maintype, subtype=subtype, filename=attachment.filename
            )
        return mail


def stable_message_id(key: str, domain: str) -> str:
    """A Message-ID that is the same for the same `key` (a run's id, say), at `domain`."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{domain}>"


def parse_address(text: str) -> Address:
    """Read `ann@example.com` or `Ann Lee <ann@example.com>`. The domain comes back in its ASCII form (IDNA).

    Raises:
        InvalidMessage: it is not exactly one address.
    """
    _one_line("address", text)
    match = _MAILBOX.fullmatch(text.strip())
    spec = ((match["angled"] if match["angled"] is not None else match["bare"]) if match else "").strip()
    if match is None or not _SPEC.fullmatch(spec):
        raise InvalidMessage(f"{text!r} is not one mail address")
    local, _, domain = spec.partition("@")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        domain = ""
    if not _DOMAIN.fullmatch(domain) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise InvalidMessage(f"{text!r} is not one mail address")
    name = (match["name"] or "").strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return Address(display_name=name, username=local, domain=domain)


def _fill(part: MIMEPart, text: str, subtype: str) -> None:
    """Give a part its text; by a shorter way than the library's where nothing has to be encoded."""
    if not text.isascii() or max(map(len, text.splitlines()), default=0) > _LONGEST_LINE:
        part.set_content(text, subtype=subtype)
        return
    if isinstance(part, EmailMessage):
        part["MIME-Version"] = "1.0"
    part["Content-Type"] = f'text/{subtype}; charset="utf-8"'
    part["Content-Transfer-Encoding"] = "7bit"
    part.set_payload(text if text.endswith("\n") else f"{text}\n")


def _written(addresses: list[Address]) -> str | list[Address]:
    """Addresses for a header; what is not ASCII is encoded by the library."""
    text = ", ".join(map(str, addresses))
    return text if text.isascii() else addresses


def _boundary() -> str:
    """What no body holds. The library, left to itself, looks through all of them, with a new pattern each."""
    return f"=_{secrets.token_hex(16)}"


def _one_line(what: str, value: str) -> None:
    """Refuse what could end a header line and begin another (CVE-2024-6923, CVE-2026-1299).

    More than CR and LF: Python itself breaks lines at further control and separator characters.
    """
    bad = next((c for c in value if c != "\t" and unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")), None)
    if bad is not None:
        raise InvalidMessage(f"{what} must be one line of plain characters; it holds {bad!r}: {value[:80]!r}")
