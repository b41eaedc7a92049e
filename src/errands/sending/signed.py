"""Celery's own sending, signed: where kombu is about to encode a message, we encode and sign it first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.serialization import dumps

from errands.core.signing import MARKS, Signer


class SigningProducer:
    """One of kombu's producers that signs the messages of tasks. All else is the producer's own.

    Args:
        producer: kombu's.
        signer: the keys.
    """

    def __init__(self, producer: Any, signer: Signer) -> None:
        self._producer = producer
        self._signer = signer

    def publish(
        self, body: Any, routing_key: str | None = None, *, headers: dict[str, Any] | None = None,
        serializer: str | None = None, content_type: str | None = None, content_encoding: str | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """As kombu's, whose arguments these are."""
        if headers and headers.get("task") and not content_type:
            kind, encoding, data = dumps(body, serializer=serializer or self._producer.serializer)  # type: ignore[no-untyped-call]
            body = data.encode(encoding) if isinstance(data, str) else data
            content_type, content_encoding = kind, encoding
            headers = {**headers, MARKS: self._signer.marks(headers, body, kind, encoding)}
            serializer = None
        return self._producer.publish(
            body, routing_key, headers=headers, serializer=serializer, content_type=content_type,
            content_encoding=content_encoding, **options,
        )  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


@contextmanager
def signing(acquired: Any, signer: Signer) -> Iterator[SigningProducer]:
    """The producer that the context `acquired` gives, as one that signs."""
    with acquired as producer:
        yield SigningProducer(producer, signer)
