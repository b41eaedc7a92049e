"""Values as templates read them, alike in all documents."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from errands.kits.documents.errors import DocumentError
from errands.kits.documents.picture import Picture
from errands.kits.documents.text import Texts

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*")


def check_language(tag: str) -> None:
    """Raise `DocumentError` for what is no language tag (BCP 47)."""
    if not _LANGUAGE.fullmatch(tag):
        raise DocumentError(f"language {tag!r} is no language tag: write it like en or zh-Hant")


def check_url(url: str) -> None:
    """Raise `DocumentError` for what is no address that people can open."""
    if not re.fullmatch(r"https?://[^\s/]+[^\s]*", url) or not url.isprintable():
        raise DocumentError(f"verify_url {url!r} is no http or https address")


def day_data(day: date | None) -> dict[str, int] | None:
    """A day for typst's `datetime`."""
    return {"year": day.year, "month": day.month, "day": day.day} if day else None


def picture_data(picture: Picture | None, texts: Texts, where: str) -> dict[str, Any] | None:
    """A picture by its name; `Typesetters` put the file in its place."""
    if picture is None:
        return None
    return {
        "file": picture.name,
        "alt": texts.plain(picture.alt, f"alt text of the {where}"),
        "width": picture.width,
        "caption": texts(picture.caption, f"caption of the {where}"),
    }


def qr(url: str) -> str:
    """A QR code (ISO/IEC 18004, 15 % of it may be damaged) as SVG."""
    import segno

    return segno.make(url, error="m", micro=False).svg_inline(border=0, dark="#1f2a37", scale=4)


def is_number(value: object) -> bool:
    """Whether `value` is a number to be summed and set to the right; a bool is none."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def shown(value: object, spec: str = "") -> str:
    """`value` as text: numbers short, dates as in ISO 8601, None as nothing, true and false as signs.

    `spec`: a format for numbers and dates, as in `format(value, spec)`.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return "" if value is None else "–"
    if isinstance(value, bool):
        return "✓" if value else "–"
    if isinstance(value, Enum):
        return shown(value.value, spec)
    if spec and isinstance(value, int | float | Decimal | date):
        return format(value, spec)
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    if isinstance(value, datetime):
        return value.isoformat(" ", "minutes")
    return str(value)
