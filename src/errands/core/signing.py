"""Signatures of messages: that we made one, and that nobody has changed it since.

Keyed BLAKE2b (RFC 7693), which needs no HMAC around it. What is signed is the body's bytes and all headers
but those that brokers add on the way.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from errands.core import clock
from errands.core.errors import ConfigurationError, UntrustedMessage
from errands.core.secrets import read_keys

MARKS, SIGNATURE = "errands", "sig"

_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_MAC_BYTES = 24
_PURPOSE = b"errands-message1"  # 16 bytes: what a key of ours signs elsewhere is no signature of a message
# Written by kombu, our transport and RabbitMQ on the way; what is signed is the body before any compression.
_OF_TRANSPORTS = frozenset((
    "redelivered", "compression", "x-delivery-count", "x-acquired-count", "x-death", "x-first-death-exchange",
    "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange", "x-last-death-queue",
    "x-last-death-reason", "x-received-from", "x-shovelled",
))  # fmt: skip
_encode = msgspec.json.Encoder(order="deterministic", enc_hook=str).encode
_UNUSUAL = (TypeError, ValueError, OverflowError, RecursionError)


class Signed(NamedTuple):
    """What a good signature says: with which key, and when it was made (seconds since 1970)."""

    key_id: str
    at: float


class Signer:
    """Keys by id. The first one signs, all of them verify, so that keys can be rotated.

    Args:
        keys: pairs of a short id (letters, digits, `-`, `_`) and 32 bytes; at least one.
    """

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        given = dict(keys)
        if not given:
            raise ConfigurationError("there is no key to sign messages with")
        for key_id, key in given.items():
            if not _KEY_ID.fullmatch(key_id):
                raise ConfigurationError(f"signing key id {key_id!r}: use 1 to 32 letters, digits, - or _")
            if len(key) != 32:
                raise ConfigurationError(
                    f"signing key {key_id!r} has {len(key)} bytes; it needs 32: "
                    "make one with `python -m errands keys new`"
                )
        self._first = next(iter(given))
        self._states = {
            key_id: blake2b(key=key, digest_size=_MAC_BYTES, person=_PURPOSE) for key_id, key in given.items()
        }

    @classmethod
    def parse(cls, text: str) -> Signer | None:
        """Read `id:base64,id:base64`, as ERRANDS_SIGNING_KEYS holds it; None where there is no key."""
        keys = read_keys(text, "signing key")
        return cls(keys) if keys else None

    def marks(
        self, headers: Mapping[str, Any], body: bytes, content_type: str | None, encoding: str | None
    ) -> dict[str, Any]:
        """The header `errands` of a message that is about to be sent, with its signature.

        Args:
            headers: all of the message's, as they are sent.
            body: its bytes, before any compression.
            content_type, encoding: what they are.
        """
        marks = headers.get(MARKS)
        mine = {k: v for k, v in marks.items() if k != SIGNATURE} if isinstance(marks, dict) else {}
        at = int(clock.timestamp() * 1000)
        mac = self._mac(self._first, at, {**headers, MARKS: mine}, body, content_type, encoding)
        mine[SIGNATURE] = f"{self._first}:{at}:{mac}"
        return mine

    def check(
        self, headers: Mapping[str, Any], body: bytes, content_type: str | None, encoding: str | None
    ) -> Signed | None:
        """Verify a message that has come.

        Returns:
            When it was signed, or None where it bears no signature at all.

        Raises:
            UntrustedMessage: the signature is not one of ours, or not of this message.
        """
        marks = headers.get(MARKS)
        signature = marks.get(SIGNATURE) if isinstance(marks, dict) else None
        if signature is None:
            return None
        try:
            key_id, at, given = signature.split(":")
            signed = Signed(key_id, int(at) / 1000)
        except (ValueError, AttributeError, OverflowError) as exc:
            raise UntrustedMessage("its signature cannot be read") from exc
        if key_id not in self._states:
            raise UntrustedMessage(
                f"it is signed with key {key_id[:32]!r}, which this process does not have: "
                "keep old keys in ERRANDS_SIGNING_KEYS, behind the new one, until all they signed is done"
            )
        mine = {k: v for k, v in marks.items() if k != SIGNATURE}  # type: ignore[union-attr]
        try:
            mac = self._mac(key_id, int(at), {**headers, MARKS: mine}, body, content_type, encoding)
        except _UNUSUAL as exc:
            raise UntrustedMessage("its headers are none that we could have signed") from exc
        if not hmac.compare_digest(mac.encode(), given.encode(errors="replace")):
            raise UntrustedMessage("it was changed after it was signed, or somebody else has signed it")
        return signed

    def _mac(
        self, key_id: str, at: int, headers: dict[str, Any], body: bytes, content_type: str | None,
        encoding: str | None,
    ) -> str:  # fmt: skip
        if not _OF_TRANSPORTS.isdisjoint(headers):
            headers = {name: value for name, value in headers.items() if name not in _OF_TRANSPORTS}
        about = (key_id, at, content_type, encoding, headers)
        text = _canonical(about)
        # The length in front: no byte of the headers can be taken for one of the body.
        mac = self._states[key_id].copy()
        mac.update(len(text).to_bytes(8, "big") + text + body)
        return base64.urlsafe_b64encode(mac.digest()).decode()


def _canonical(value: Any) -> bytes:
    """JSON that is the same on both sides of a broker, whatever the order of keys was."""
    try:
        return _encode(value)
    except _UNUSUAL:  # halves of surrogate pairs, which become whole on the way
        plain = json.loads(json.dumps(value, default=str))
    try:
        return _encode(plain)
    except _UNUSUAL:
        return json.dumps(plain, sort_keys=True).encode()
