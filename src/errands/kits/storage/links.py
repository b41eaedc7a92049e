"""Download links: signed, for one file, for a time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from errands.core import clock
from errands.core.errors import ConfigurationError
from errands.kits.storage.errors import InvalidKey, LinkExpired, LinkForged
from errands.kits.storage.keys import check_key

_SECONDS = re.compile(r"[0-9]{1,12}")
_MOST_NAME = 150


@dataclass(frozen=True, slots=True)
class Link:
    """What a link that holds allows."""

    key: str
    filename: str
    expires_at: datetime
    owner: str | None


class LinkSigner:
    """Makes download links and tells whether one holds.

    The signature is HMAC-SHA256 (RFC 2104) over the key of the file, the owner, the moment of expiry, the
    disposition and the file name; changing any of them breaks it.

    `key`: at least 32 secret bytes, the same in every process. `base_url`: where the files route is mounted,
    without `/files` (`https://school.example`).
    """

    def __init__(self, key: bytes, base_url: str) -> None:
        if len(key) < 32:
            raise ConfigurationError(f"a link key has 32 random bytes or more, not {len(key)}")
        if not re.match(r"https?://[^/?#\s]+", base_url):
            raise ConfigurationError(f"base_url {base_url!r}: give an address like https://school.example")
        self._key = key
        self.base_url = base_url.rstrip("/")

    def sign(self, key: str, *, filename: str, expires_in: float, owner: str | None = None) -> str:
        """The link to `key`, good for `expires_in` seconds from now (more than 0; part seconds are cut)."""
        check_key(key)
        expires = int(clock.timestamp() + expires_in)
        if expires_in <= 0 or not _SECONDS.fullmatch(str(expires)):
            raise ValueError(f"expires_in={expires_in!r}: a link is good for more than 0 seconds")
        name = safe_filename(filename)
        query = {"name": name, "expires": str(expires)}
        if owner is not None:
            query["owner"] = owner
        query["signature"] = self._signature(key, name, expires, owner)
        return f"{self.base_url}/files/{quote(key)}?{urlencode(query, quote_via=quote)}"

    def check(self, key: str, query: Mapping[str, str]) -> Link:
        """What the link to `key` with this query allows.

        Raises `LinkForged` if we did not sign exactly this, `LinkExpired` if we did and its time is over.
        """
        name, expires, owner = query.get("name", ""), query.get("expires", ""), query.get("owner")
        try:
            check_key(key)
        except InvalidKey as error:
            raise LinkForged("this link was not made here") from error
        if not _SECONDS.fullmatch(expires):
            raise LinkForged("this link was not made here")
        expected = self._signature(key, name, int(expires), owner)
        given = query.get("signature", "")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            raise LinkForged("this link was not made here, or it was changed")
        if clock.timestamp() >= int(expires):
            raise LinkExpired("this link is no longer good; ask for a new one")
        return Link(key, name, datetime.fromtimestamp(int(expires), UTC), owner)

    def _signature(self, key: str, filename: str, expires: int, owner: str | None) -> str:
        # JSON keeps the parts apart: no two lists of parts are the same text.
        signed = json.dumps(["errands-link-1", key, owner, expires, "attachment", filename]).encode()
        digest = hmac.digest(self._key, signed, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def safe_filename(filename: str) -> str:
    """`filename` as it may stand in a header and on any disk: one line, no path, at most 150 characters.

    What comes before the last dot is shortened, not what follows it. Without a usable character left it is
    `download`.
    """
    text = unicodedata.normalize("NFC", filename)
    # Bidirectional controls go with the others: they can make "exe.pdf" of "fdp.exe".
    text = "".join(
        "_" if letter in '/\\:*?"<>|' else letter
        for letter in text
        if unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    ).strip(" .")
    if len(text) > _MOST_NAME:
        stem, dot, ending = text.rpartition(".")
        tail = dot + ending if stem and len(ending) <= 10 else ""
        text = text[: _MOST_NAME - len(tail)].rstrip(" .") + tail
    return text or "download"


def content_disposition(filename: str) -> str:
    """The header that makes a browser save the file as `filename` (RFC 6266, RFC 8187)."""
    name = safe_filename(filename)
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
