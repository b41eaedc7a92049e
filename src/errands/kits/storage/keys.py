"""The names of stored files: made here, never taken from a user.

A key is `<folders>/<128 or more bits in hex><suffix>`, for example
`2026/03/05/9f86d081884c7d659a2feaa0c55ad015.pdf`. Whatever comes back as a key is checked against that form
before it comes near a file system.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from errands.core import clock
from errands.kits.storage.errors import InvalidKey

# fmt: off
SUFFIXES = frozenset({
    "", ".avif", ".csv", ".gif", ".jpeg", ".jpg", ".json", ".jsonl", ".pdf", ".png", ".txt", ".webp", ".xlsx",
    ".zip",
})
# fmt: on
"""The suffixes a stored file may have. No HTML and no SVG: a browser would run what is in them."""

_FOLDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEY = re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,63}/){1,4}[0-9a-f]{32,64}(\.[a-z0-9]{1,8})?")
_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,128}(; ?[a-z0-9-]{1,32}=[A-Za-z0-9._-]{1,64})?")


def new_key(suffix: str = "") -> str:
    """A key that nobody can guess, in a folder of today's date (UTC).

    Raises `InvalidKey` for a suffix outside `SUFFIXES`.
    """
    return f"{clock.now():%Y/%m/%d}/{secrets.token_hex(16)}{check_suffix(suffix)}"


def key_for(folder: str, unique: str, suffix: str = "") -> str:
    """The one key for `unique` in `folder`: the same every time, so that work done twice makes one file.

    `unique` may be any text (a certificate number, a run's id) and cannot be read back from the key. Whoever
    knows it can work the key out; what protects the file is the signed link. Raises `InvalidKey` for a folder
    that is no plain lower-case name, an empty `unique` and a suffix outside `SUFFIXES`.
    """
    if not _FOLDER.fullmatch(folder):
        raise InvalidKey(f"{folder!r} can't be a folder of a key: take lower-case letters, digits, - and _")
    if not unique:
        raise InvalidKey(f"key_for({folder!r}, ''): an empty text is not unique")
    return f"{folder}/{hashlib.sha256(unique.encode()).hexdigest()}{check_suffix(suffix)}"


def check_key(key: str) -> str:
    """`key` itself if it has the form of a key; raises `InvalidKey` if not."""
    found = _KEY.fullmatch(key)
    if not found or (found[1] or "") not in SUFFIXES:
        raise InvalidKey(f"{key[:200]!r} is no key of a stored file: use what `put` or `key_for` returned")
    return key


def check_suffix(suffix: str) -> str:
    """`suffix` itself if it is allowed; raises `InvalidKey` if not."""
    if suffix not in SUFFIXES:
        allowed = " ".join(sorted(SUFFIXES - {""}))
        raise InvalidKey(f"{suffix[:50]!r} is no suffix for a stored file: use one of {allowed}, or none")
    return suffix


def check_content_type(content_type: str) -> str:
    """`content_type` itself if it is like `text/csv; charset=utf-8`; raises `ValueError` if not."""
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise ValueError(f"{content_type[:200]!r} is no content type: write it like application/pdf")
    return content_type
