"""Secret arguments: sealed in the message, opened in the worker, `***` everywhere else."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from errands.core.errors import ConfigurationError, SecretError

MASK = "***"

T = TypeVar("T")


def read_keys(text: str, what: str) -> list[tuple[str, bytes]]:
    """Keys written `id:base64,id:base64`. `what` they are is for errors.

    Raises:
        ConfigurationError: they are written otherwise.
    """
    keys = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        key_id, colon, encoded = item.partition(":")
        try:
            key = base64.urlsafe_b64decode(encoded.replace("+", "-").replace("/", "_"))
        except ValueError as exc:
            raise ConfigurationError(f"{what} {key_id!r} is not base64") from exc
        if not colon:
            raise ConfigurationError(f"{what}s are written id:base64, with commas between them")
        keys.append((key_id, key))
    return keys


class SecretMarker:
    """Says in an annotation that a value is secret."""

    kind = ""  # what a sealed value's context begins with: a value of one kind does not open as another

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from errands.core.sealing import sealed_schema  # with pydantic, whose models need it

        return sealed_schema(cls.kind, source, handler)

    def __repr__(self) -> str:
        return "Secret"


# `token: Secret[str]`: the task's body gets a plain str; nobody else gets to see it.
Secret = Annotated[T, SecretMarker()]

# A sealed value is one string, so that it passes through JSON, SQL and Celery's own headers untouched.
_LEAST = 12 + 16  # bytes: what AES-GCM seals with, and the tag that it ends with
_SEALED = re.compile(r"sealed:v1:([A-Za-z0-9_-]{1,32}):([A-Za-z0-9_-]+={0,2})")


class Keyring:
    """AES-256-GCM keys by id. The first one seals, all of them open, so that keys can be rotated.

    Args:
        keys: pairs of a short id (letters, digits, `-`, `_`) and 32 bytes.
    """

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        self._keys = dict(keys)
        for key_id, key in self._keys.items():
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", key_id):
                raise ConfigurationError(f"secret key id {key_id!r}: use 1 to 32 letters, digits, - or _")
            if len(key) != 32:
                raise ConfigurationError(
                    f"secret key {key_id!r} has {len(key)} bytes; it needs 32: "
                    "make one with `python -m errands keys new`"
                )
        if self._keys:
            # Without a key nothing is sealed, and a process need not carry the ciphers; with one it imports
            # them now and not at the first secret, so that a pool's children share them.
            import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Read `id:base64,id:base64`, as ERRANDS_SECRET_KEYS holds it. An empty text is an empty ring."""
        return cls(read_keys(text, "secret key"))

    @staticmethod
    def new_key(key_id: str = "k1") -> str:
        """A new random key, in the form that `parse` reads."""
        return f"{key_id}:{base64.urlsafe_b64encode(os.urandom(32)).decode()}"

    def __bool__(self) -> bool:
        return bool(self._keys)

    def seal(self, value: Any, context: str) -> str:
        """Encrypt a JSON-serialisable `value`. Only the same `context` opens it again.

        Raises:
            SecretError: the ring is empty.
        """
        if not self._keys:
            raise SecretError(
                "there is no key to seal a secret with: set ERRANDS_SECRET_KEYS "
                "(make one with `python -m errands keys new`)"
            )
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key_id, key = next(iter(self._keys.items()))
        nonce = os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, json.dumps(value).encode(), context.encode())
        return f"sealed:v1:{key_id}:{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, *contexts: str) -> Any:
        """Decrypt what `seal` made under one of `contexts`.

        Raises:
            SecretError: it is not sealed, its key is unknown, or it was tampered with.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        match = _SEALED.fullmatch(sealed)
        if match is None:
            raise SecretError("this value is not sealed")
        key = self._keys.get(match[1])
        if key is None:
            raise SecretError(
                f"sealed with key {match[1]!r}, which this process does not have: "
                "keep old keys in ERRANDS_SECRET_KEYS, behind the new one, until all they sealed is done"
            )
        try:
            data = base64.urlsafe_b64decode(match[2])
        except ValueError as exc:
            raise SecretError("the sealed value is damaged") from exc
        if len(data) < _LEAST:
            raise SecretError("the sealed value is damaged")
        for context in contexts:
            try:
                return json.loads(AESGCM(key).decrypt(data[:12], data[12:], context.encode()))
            except InvalidTag:
                continue
        raise SecretError("the sealed value was changed, or was sealed for something else")

    def derive(self, purpose: str) -> bytes:
        """32 bytes for another use (signing links, say), derived from the first key by HKDF (RFC 5869)."""
        if not self._keys:
            raise SecretError("there is no key to derive from: set ERRANDS_SECRET_KEYS")
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        key = next(iter(self._keys.values()))
        return HKDF(hashes.SHA256(), 32, salt=None, info=f"errands:{purpose}".encode()).derive(key)


def is_sealed(value: object) -> bool:
    """Whether `value` is a string that `Keyring.seal` made."""
    return isinstance(value, str) and _SEALED.fullmatch(value) is not None


def mask(value: Any) -> Any:
    """`value` with every sealed string in it replaced by `***`, however deep it lies."""
    if isinstance(value, str):
        return _SEALED.sub(MASK, value)
    if isinstance(value, dict):
        return {mask(key): mask(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [mask(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def scrub(text: str, secrets: Iterable[str]) -> str:
    """`text` without any of the opened `secrets`. Those under four characters are left: masking every "a"
    in a message would hide the message and tell the secret."""
    for secret in sorted((s for s in secrets if len(s) >= 4), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _SEALED.sub(MASK, text)
