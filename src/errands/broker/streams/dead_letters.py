"""Messages that nobody will be given any more: kept whole, with the reason, and told of."""

from __future__ import annotations

import base64
import hashlib
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kombu.utils.json import loads

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.streams.holdings import Holdings
from errands.broker.streams.layout import TELLERS
from errands.core import clock
from errands.core.errors import UntrustedMessage
from errands.core.events import Event, Kind
from errands.core.signing import Signer

logger = logging.getLogger("errands.transport")

_BODY_MAX = 256 * 1024


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter: its id in the stream, the message as it was, why, how often rescued, when (s, 1970)."""

    entry_id: str
    raw: bytes
    reason: str
    rescued: int
    at: float


def dead_letters(client: Client, keys: Keys, queue: str, limit: int = 100) -> list[DeadLetter]:
    """The newest dead letters of a queue, the newest first. One round trip."""
    rows: Any = client.xrevrange(keys.dead(queue), count=limit)
    return [
        DeadLetter(
            entry_id=entry.decode(),
            raw=fields[b"m"],
            reason=fields[b"reason"].decode(errors="replace"),
            rescued=int(fields[b"n"]),
            at=float(fields[b"at"]),
        )
        for entry, fields in rows
    ]


def tell(holdings: Holdings, rows: list[Any]) -> None:
    """Tell each dead letter to the hook, and note which were told. What fails is told again in a minute.

    Args:
        rows: queue, entry id, message and reason, one after the other.
    """
    hook = holdings.options.hook or _log
    told: dict[str, list[str]] = {}
    for i in range(0, len(rows), 4):
        queue, entry, raw, reason = rows[i : i + 4]
        name = queue.decode()
        try:
            hook(name, raw, reason.decode(errors="replace"))
        except Exception:
            logger.exception("a dead letter of queue %s could not be told; it will be in a minute", name)
        else:
            told.setdefault(name, []).append(entry.decode())
    if told:
        with holdings.client.pipeline(transaction=False) as pipe:
            for name, entries in told.items():
                pipe.xack(holdings.keys.dead(name), TELLERS, *entries)
            pipe.execute()


class Live(Protocol):
    """Where events go."""

    def record(self, event: Event) -> Any:
        """Write one event."""


def recorder(live: Callable[[], Live], signer: Signer | None = None) -> Callable[[str, bytes, str], None]:
    """A hook that records each dead letter as an event; the run that it belonged to has failed with it.

    Told twice, the same dead letter is the same run's. With a signer, a run is believed to have been the
    message's only where the message bears a good signature.
    """

    def record(queue: str, raw: bytes, reason: str) -> None:
        envelope = _envelope(raw)
        headers = envelope["headers"]
        given, task = headers.get("id"), headers.get("task")
        digest = hashlib.sha256(raw).hexdigest()
        facts: dict[str, Any] = {
            "run_id": str(given)[:255] if given else str(uuid.uuid5(uuid.NAMESPACE_OID, digest)),
            "at": clock.timestamp(),
            "task": task if isinstance(task, str) else None,
            "queue": queue,
        }
        live().record(Event(kind=Kind.DEAD_LETTER, note=reason, message=envelope, **facts))
        if given and (signer is None or _is_ours(signer, envelope)):
            error = {"type": "DeadLetter", "message": reason}
            live().record(Event(kind=Kind.FAILED, error=error, **facts))
        logger.error("dead letter: %s", reason)

    # `inspect stats` and Flower tell the transport's options as JSON; kombu asks a value for its own.
    record.__json__ = lambda: "recorded as an event"  # type: ignore[attr-defined]
    return record


def _is_ours(signer: Signer, envelope: dict[str, Any]) -> bool:
    try:
        return signer.check(*parts_of(envelope)) is not None
    except UntrustedMessage:
        return False


def parts_of(envelope: dict[str, Any]) -> tuple[dict[str, Any], bytes, str | None, str | None]:
    """Of a message as events keep it, what a signature is over: headers, body, its type and encoding."""
    body = base64.b64decode(envelope.get("body") or "")
    return envelope.get("headers") or {}, body, envelope.get("content_type"), envelope.get("content_encoding")


def _log(queue: str, raw: bytes, reason: str) -> None:
    logger.error("dead letter in queue %s: %s: %r", queue, reason, raw[:2000])


def _envelope(raw: bytes) -> dict[str, Any]:
    """A message as events keep it; of what is none, the bytes."""
    try:
        message = loads(raw)  # type: ignore[no-untyped-call]
        properties, headers, body = message["properties"], message["headers"] or {}, message["body"]
        data = base64.b64decode(body) if properties.get("body_encoding") == "base64" else body.encode()
        return {
            "body": base64.b64encode(data[:_BODY_MAX]).decode(),
            "truncated": len(data) > _BODY_MAX,
            "content_type": message.get("content-type"),
            "content_encoding": message.get("content-encoding"),
            "headers": dict(headers),
            "properties": dict(properties),
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {
            "body": base64.b64encode(raw[:_BODY_MAX]).decode(),
            "truncated": len(raw) > _BODY_MAX,
            "headers": {},
        }
