"""Links by which people stop bulk mail with one click (RFC 2369, RFC 8058)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from errands import ConfigurationError, ErrandsError, Keyring

_CONTEXT = "mail-unsubscribe"
_PREFIX = "sealed:v1:"
_TOKEN = re.compile(r"([A-Za-z0-9_-]{1,32})\.([A-Za-z0-9_-]{1,2000})")


class InvalidLink(ErrandsError):
    """This link was not made here."""


class Unsubscribe:
    """Makes the links and reads them.

    A link names the address and the topic, sealed: nobody can make one for somebody else, and none of it can
    be read in the logs of those who pass it on. It holds for as long as its key is in ERRANDS_SECRET_KEYS.

    Args:
        keyring: seals them.
        base_url: where `unsubscribe_router` is mounted, without `/unsubscribe`. Mail services follow RFC
            8058 with https alone.

    Raises:
        ConfigurationError: there is no key, or `base_url` is no address.
    """

    def __init__(self, keyring: Keyring, base_url: str) -> None:
        if not keyring:
            raise ConfigurationError(
                "links to unsubscribe are sealed, and there is no key: set ERRANDS_SECRET_KEYS "
                "(make one with `python -m errands keys new`)"
            )
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ConfigurationError(f"base_url {base_url!r}: give an address like https://school.example")
        self._keyring = keyring
        self._base_url = base_url.rstrip("/")

    def link(self, address: str, topic: str = "") -> str:
        """Where `address` stops mail about `topic`."""
        key_id, _, sealed = (
            self._keyring.seal([address, topic], _CONTEXT).removeprefix(_PREFIX).partition(":")
        )
        return f"{self._base_url}/unsubscribe/{key_id}.{sealed.rstrip('=')}"

    def headers(self, address: str, topic: str = "") -> dict[str, str]:
        """For a mail to `address`. Sign them with DKIM, or mail services do not show the button."""
        return {
            "List-Unsubscribe": f"<{self.link(address, topic)}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }

    def read(self, token: str) -> tuple[str, str]:
        """The address and the topic of a link, by what stands behind its last `/`.

        Raises:
            InvalidLink: we did not make it.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise InvalidLink("this link was not made here")
        padding = "=" * (-len(match[2]) % 4)
        try:
            address, topic = self._keyring.open(f"{_PREFIX}{match[1]}:{match[2]}{padding}", _CONTEXT)
        except ErrandsError as exc:
            raise InvalidLink("this link was not made here, or its key is no longer known") from exc
        return str(address), str(topic)
