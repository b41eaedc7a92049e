"""Files from storage that go with mails. Where they are the mail kit need not know: it is given a reader."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from errands.kits.mail.errors import InvalidMessage
from errands.kits.mail.message import Attachment

# Gives the bytes that are kept under a key: `storage.read`, say.
Reader = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in storage, as an attachment.

    Args:
        key: what the reader knows it by.
        filename: what the reader of the mail sees; None takes what follows the key's last `/`.
        content_type: such as "application/pdf"; None tells it from the file name's ending.
    """

    key: str
    filename: str | None = None
    content_type: str | None = None


class Attachments:
    """Reads stored files when a mail is written.

    Args:
        read: gives the bytes.
        most: bytes that one file may have: mail servers refuse mails of more than some 25 MB, and what is
            attached grows by a third.
    """

    def __init__(self, read: Reader, *, most: int = 15 * 1024 * 1024) -> None:
        self._read = read
        self._most = most

    async def load(self, stored: Stored) -> Attachment:
        """The file, to be put into `Message(attachments=…)`.

        Raises:
            InvalidMessage: it is too large, or its name cannot stand in a mail.
            Exception: what the reader raises.
        """
        filename = stored.filename or stored.key.rpartition("/")[2]
        content_type = stored.content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"
        data = await self._read(stored.key)
        if len(data) > self._most:
            raise InvalidMessage(
                f"{filename!r} has {len(data):,} bytes, and a mail takes {self._most:,}: send a link to it"
            )
        return Attachment(filename, content_type, data)
