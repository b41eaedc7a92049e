"""What a notification says, and what of it goes to a device."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from errands.kits.push.errors import InvalidNotice

TITLE_MAX, MESSAGE_MAX = 200, 1000  # characters
DATA_MAX = 2000  # bytes of JSON
DAY = 24 * 3600
KIND = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"
# FCM takes 4,096 bytes of payload, a Web Push service a body of 4,096 that 103 bytes of encryption belong to
# (RFC 8291, section 4). What is left is for names, quotes, and what a provider adds.
_ROOM = 3500
_TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")  # RFC 8030, section 5.4


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told.

    Args:
        title: up to 200 characters, one line.
        message: up to 1,000 characters. A device may get less of it: all that fits into its payload.
        data: JSON for the application that shows it, up to 2,000 bytes; no secrets: screens show it.
        kind: a word such as "grade", by which users turn off what they do not want.
        urgent: passes quiet hours, and asks the device for attention at once.
        topic: up to 32 letters, digits, - and _: a newer one replaces what a device has not shown yet.
        ttl: seconds that a push service keeps it for a device that is off.

    Raises:
        InvalidNotice: it says which part is wrong.
    """

    title: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "general"
    urgent: bool = False
    topic: str | None = None
    ttl: int = DAY

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", dict(self.data or {}))
        if not 0 < len(self.title) <= TITLE_MAX or not self.title.isprintable():
            raise InvalidNotice(f"the title has 1 to {TITLE_MAX} printable characters")
        if not 0 < len(self.message) <= MESSAGE_MAX:
            raise InvalidNotice(f"the message has 1 to {MESSAGE_MAX} characters, not {len(self.message):,}")
        if not re.fullmatch(KIND[1:-1], self.kind):
            raise InvalidNotice(
                f"kind={self.kind[:80]!r}: use a word of up to 64 letters, digits, . : - or _"
            )
        if self.topic is not None and not _TOPIC.fullmatch(self.topic):
            raise InvalidNotice(f"topic={self.topic[:80]!r}: use up to 32 letters, digits, - or _")
        if not 0 <= self.ttl <= 28 * DAY:
            raise InvalidNotice(f"ttl={self.ttl}: a push service keeps a message for 0 seconds to 28 days")
        try:
            size = len(json.dumps(self.data, allow_nan=False, ensure_ascii=False).encode())
        except (TypeError, ValueError) as exc:
            raise InvalidNotice(f"the data is no JSON: {exc}") from exc
        if size > DATA_MAX:
            raise InvalidNotice(
                f"the data weighs {size:,} bytes and may weigh {DATA_MAX:,}: send an id, and let the "
                "application ask for the rest"
            )


@dataclass(frozen=True, slots=True)
class PushMessage:
    """What a `Pusher` hands over. `id` is the notification's: the same at every attempt, so that a device
    which gets it twice can show it once."""

    id: str
    title: str
    message: str
    data: Mapping[str, Any]
    kind: str
    urgent: bool
    topic: str | None
    ttl: int

    @classmethod
    def of(cls, notice: Notice, notification_id: str) -> PushMessage:
        """The part of a notice that fits into a payload."""
        used = len(json.dumps([notice.title, notice.data], ensure_ascii=False).encode())
        return cls(
            id=notification_id,
            title=notice.title,
            message=_shortened(notice.message, _ROOM - used),
            data=notice.data,
            kind=notice.kind,
            urgent=notice.urgent,
            topic=notice.topic,
            ttl=notice.ttl,
        )


def _shortened(text: str, room: int) -> str:
    """As much of `text` as takes `room` bytes of JSON, with … where something is left out."""
    if _weight(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _weight(text[:middle] + "…") <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def _weight(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))
