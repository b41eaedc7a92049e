"""Caught mails, kept as `.eml` files in one folder, so that they are still there after a restart."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from errands.core import clock

MAILS_KEPT = 5_000
# Written before the mail's own headers: who it was really sent to, blind copies included.
RECIPIENT_HEADER = "X-Envelope-To"
SENDER_HEADER = "X-Envelope-From"
NAME = re.compile(r"[0-9]{20}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Attachment:
    """A file in a mail; `size` in bytes."""

    filename: str
    content_type: str
    size: int


@dataclass(frozen=True)
class Mail:
    """A caught mail as the page and the API show it; `received_at` is ISO 8601 in UTC."""

    id: str
    sender: str
    to: list[str]
    subject: str
    text: str
    html: str
    attachments: list[Attachment]
    received_at: str

    def as_json(self) -> dict[str, Any]:
        """The fields of the API."""
        fields = asdict(self)
        fields["from"] = fields.pop("sender")
        return fields


class MailStore:
    """The mails in `folder`, newest first; at most `most` are kept."""

    def __init__(self, folder: Path, most: int = MAILS_KEPT) -> None:
        self.folder = folder
        self.most = most
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._mails: dict[str, Mail] = {}
        for path in sorted(folder.glob("*.eml")):
            if NAME.fullmatch(path.stem):
                self._mails[path.stem] = _read(path.stem, path.read_bytes())

    def __iter__(self) -> Iterator[Mail]:
        return reversed(list(self._mails.values()))

    def __len__(self) -> int:
        return len(self._mails)

    def get(self, mail_id: str) -> Mail | None:
        """One mail, or None."""
        return self._mails.get(mail_id)

    def add(self, content: bytes, sender: str, recipients: list[str]) -> Mail:
        """Keeps a mail as it came over SMTP."""
        mail_id = f"{int(clock.timestamp() * 1e6):020d}-{secrets.token_hex(4)}"
        envelope = "".join(f"{RECIPIENT_HEADER}: {address}\r\n" for address in recipients)
        content = f"{SENDER_HEADER}: {sender}\r\n{envelope}".encode() + content
        temporary = self.folder / f".{mail_id}"
        temporary.write_bytes(content)
        temporary.replace(self._path(mail_id))
        self._mails[mail_id] = mail = _read(mail_id, content)
        while len(self._mails) > self.most:
            self.remove(next(iter(self._mails)))
        return mail

    def remove(self, mail_id: str) -> None:
        """Forgets one mail."""
        if self._mails.pop(mail_id, None) is not None:
            self._path(mail_id).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forgets all of them."""
        for mail_id in list(self._mails):
            self.remove(mail_id)

    def attachment(self, mail_id: str, index: int) -> tuple[Attachment, bytes] | None:
        """A file of a mail with its content, by its place in `attachments`; None where there is none."""
        mail = self.get(mail_id)
        if mail is None or not 0 <= index < len(mail.attachments):
            return None
        parts = _attached(_parse(self._path(mail_id).read_bytes()))
        return mail.attachments[index], _content(parts[index])

    def _path(self, mail_id: str) -> Path:
        return self.folder / f"{mail_id}.eml"


def _parse(content: bytes) -> EmailMessage:
    return message_from_bytes(content, policy=policy.default)


def _read(mail_id: str, content: bytes) -> Mail:
    message = _parse(content)
    received = datetime.fromtimestamp(int(mail_id[:20]) / 1e6, UTC)
    return Mail(
        id=mail_id,
        sender=_header(message, "From") or _header(message, SENDER_HEADER),
        to=[str(address) for address in message.get_all(RECIPIENT_HEADER, [])],
        subject=_header(message, "Subject"),
        text=_body(message, "plain"),
        html=_body(message, "html"),
        attachments=[
            Attachment(
                filename=part.get_filename() or "file",
                content_type=part.get_content_type(),
                size=len(_content(part)),
            )
            for part in _attached(message)
        ],
        received_at=received.isoformat(),
    )


def _header(message: EmailMessage, name: str) -> str:
    try:
        return str(message.get(name, ""))
    except Exception:  # noqa: BLE001 - the standard parser raises many kinds on malformed headers
        return "(unreadable)"


def _body(message: EmailMessage, kind: str) -> str:
    try:
        part = message.get_body((kind,))
        return "" if part is None else str(part.get_content())
    except Exception:  # noqa: BLE001 - an unknown character set must not hide the rest of the mail
        return "(unreadable)"


def _attached(message: EmailMessage) -> list[EmailMessage]:
    try:
        return [part for part in message.walk() if not part.is_multipart() and part.get_filename()]
    except Exception:  # noqa: BLE001 - as above
        return []


def _content(part: EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
