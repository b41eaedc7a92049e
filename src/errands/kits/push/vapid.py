"""The key by which push services know this application (VAPID, RFC 8292)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from errands import ConfigurationError
from errands.core import clock
from errands.kits.push.errors import PushRefused

_GOOD_FOR = 12 * 3600  # seconds; the standard allows 24 hours
_RENEWED_BEFORE = 3600
_MOST_KEPT = 100


class VapidKey:
    """A private key on P-256, and who is behind it.

    Args:
        private_key: 32 bytes in base64url, as `new_vapid_key` and most tools write it.
        subject: whom a push service can turn to: `mailto:admin@school.example`, or an https address.

    Raises:
        ConfigurationError: one of them is something else.
    """

    def __init__(self, private_key: str, subject: str) -> None:
        from py_vapid import Vapid02  # type: ignore[import-untyped]

        try:
            raw = base64.urlsafe_b64decode(private_key.strip() + "==")
            if len(raw) != 32:
                raise ValueError(f"it has {len(raw)} bytes")
            self._vapid: Any = Vapid02.from_raw(base64.urlsafe_b64encode(raw))
        except (binascii.Error, ValueError) as exc:
            raise ConfigurationError(
                f"ERRANDS_VAPID_PRIVATE_KEY: write 32 bytes in base64url ({exc}); "
                "`push.new_vapid_key()` makes one"
            ) from exc
        self._subject = subject
        self._signed: dict[str, tuple[float, str]] = {}
        try:
            self.authorization("https://push.example")
        except PushRefused as exc:
            raise ConfigurationError(
                f"ERRANDS_VAPID_SUBJECT={subject[:80]!r}: write mailto:admin@school.example, or an "
                "https address without a path"
            ) from exc

    @property
    def public_key(self) -> str:
        """What browsers subscribe with (`applicationServerKey`): 65 bytes in base64url."""
        return public_key_of(self._vapid.private_key)

    def authorization(self, origin: str) -> str:
        """The header by which the push service at `origin` knows us. Signed anew twice a day.

        Raises:
            PushRefused: there is no signing for such an origin.
        """
        from py_vapid import VapidException

        now = clock.timestamp()
        kept = self._signed.get(origin)
        if kept is None or kept[0] - now < _RENEWED_BEFORE:
            if len(self._signed) >= _MOST_KEPT:  # origins are users' to give
                self._signed.clear()
            expires = int(now) + _GOOD_FOR
            claims = {"aud": origin, "exp": expires, "sub": self._subject}
            try:
                kept = (expires, self._vapid.sign(claims)["Authorization"])
            except VapidException as exc:
                raise PushRefused(f"nothing can be signed for {origin}: {exc}") from exc
            self._signed[origin] = kept
        return kept[1]


def new_vapid_key() -> str:
    """A new private key for ERRANDS_VAPID_PRIVATE_KEY. Whoever changes it later loses all subscriptions."""
    from cryptography.hazmat.primitives.asymmetric import ec

    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return base64.urlsafe_b64encode(number.to_bytes(32)).rstrip(b"=").decode()


def public_key_of(private_key: Any) -> str:
    """A private key's public one, as 65 bytes in base64url."""
    from cryptography.hazmat.primitives import serialization

    point = private_key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return base64.urlsafe_b64encode(point).rstrip(b"=").decode()
