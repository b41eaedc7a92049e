"""Signatures of webhooks, as Standard Webhooks (standardwebhooks.com, 1.0) has them, and the older header.

The library makes the signature. What it leaves open is done here: it skips characters that are no base64,
takes secrets of any length, fails with stray exceptions on malformed headers, and fixes the tolerance.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from errands.core import clock
from errands.kits.webhooks.errors import InvalidSecret, InvalidSignature

PREFIX = "whsec_"
ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
OLD_SIGNATURE, OLD_EVENT = "X-Webhook-Signature", "X-Webhook-Event"


def new_secret() -> str:
    """A new secret: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(os.urandom(32)).decode()


def key_of(secret: str) -> bytes:
    """The bytes that sign: for `whsec_…` what the base64 stands for, else the text itself in UTF-8.

    Raises:
        InvalidSecret: it is not base64, or not 24 to 64 bytes long (shorter ones can be guessed). A secret
            without the prefix needs 24 characters as well, and has no upper limit.
    """
    if not secret.startswith(PREFIX):
        key = secret.encode()
        if len(key) < 24:
            raise InvalidSecret("a webhook secret needs at least 24 characters: make one with new_secret()")
        return key
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as exc:
        raise InvalidSecret("what follows whsec_ in a webhook secret must be base64") from exc
    if not 24 <= len(key) <= 64:
        raise InvalidSecret(f"a webhook secret holds 24 to 64 bytes; this one holds {len(key)}")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,…` over `id.timestamp.body`. `body` must be UTF-8.

    Raises:
        InvalidSecret: see `key_of`.
    """
    moment = datetime.fromtimestamp(timestamp, UTC)
    return str(Webhook(key_of(secret)).sign(message_id, moment, body.decode()))


def headers(
    body: bytes, *, message_id: str, timestamp: int, event: str, secrets: Sequence[str]
) -> dict[str, str]:
    """The headers that go with exactly these `body` bytes.

    With several secrets, as in a rotation, there are several signatures, and the receiver may check any one.
    `X-Webhook-Signature` is the older form: hex HMAC-SHA256 of the body alone, keyed with the first secret's
    text as it stands. It has no time in it and can be replayed; new receivers check the standard one.

    Raises:
        InvalidSecret: there is no secret, or one is malformed.
    """
    if not secrets:
        raise InvalidSecret("a webhook needs at least one secret to be signed with")
    return {
        ID: message_id,
        TIMESTAMP: str(timestamp),
        SIGNATURE: " ".join(signature(secret, message_id, timestamp, body) for secret in secrets),
        OLD_SIGNATURE: hmac.new(secrets[0].encode(), body, hashlib.sha256).hexdigest(),
        OLD_EVENT: event,
    }


def verify(
    headers: Mapping[str, str], body: bytes, secrets: str | Iterable[str], *, tolerance: float = 300
) -> str:
    """Check a webhook that was received; for receivers. Answers its id.

    Remember the ids for as long as `tolerance` and ignore those you have seen: an attempt whose answer was
    lost comes again under the same id.

    Args:
        headers: as received; names in any case.
        body: the bytes as received, before any parsing.
        secrets: one secret or, while rotating, several.
        tolerance: seconds that the sender's clock and the way here may differ from ours.

    Raises:
        InvalidSignature: do not trust it; answer 400.
        InvalidSecret: one of `secrets` is malformed.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, stamp, signatures = (given.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not (message_id and stamp and signatures):
        raise InvalidSignature(f"{ID}, {TIMESTAMP} and {SIGNATURE} are all needed")
    if not re.fullmatch(r"[0-9]{1,12}", stamp):
        raise InvalidSignature(f"{TIMESTAMP} must be whole seconds since 1970")
    if abs(clock.timestamp() - int(stamp)) > tolerance:
        raise InvalidSignature(f"{TIMESTAMP} is more than {tolerance:g} s from now")
    offered = [part.encode() for part in signatures.split(" ") if part.startswith("v1,")]
    try:
        expected = [
            signature(secret, message_id, int(stamp), body).encode()
            for secret in ([secrets] if isinstance(secrets, str) else secrets)
        ]
    except UnicodeDecodeError as exc:
        raise InvalidSignature("the body is not UTF-8") from exc
    if not any(hmac.compare_digest(one, other) for one in expected for other in offered):
        raise InvalidSignature("no signature fits: another secret, or the body was changed")
    return message_id
