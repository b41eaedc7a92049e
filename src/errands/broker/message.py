"""Messages as Celery writes them (protocol 2), in the envelope of kombu's virtual transports.

What comes out is read by any Celery 5 worker, and tells it what Celery's own producer would have told; the
contract test compares the two field by field. Less is done for it: the body is JSON text and not base64 of it
(kombu takes both), and the JSON is written by msgspec wherever it says the same as kombu's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from celery.utils.saferepr import saferepr
from kombu.utils import json as kombu_json

from errands.core.secrets import mask
from errands.core.signing import MARKS, Signer

_REPR_MOST = 1024  # characters, as `celery.app.amqp.AMQP.argsrepr_maxsize`
_REPR_LEVELS = 3  # as Celery's `task_repr_maxlevels`
_SEALED = b"sealed:v1:"
NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_NOTHING_FOLLOWS = b'{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'

_KIND, _ENCODING = "application/json", "utf-8"

# A str of a class of its own, half of a surrogate pair: rare, and Python's encoder takes them.
_UNUSUAL = (TypeError, ValueError, OverflowError, RecursionError)
_encode = msgspec.json.Encoder().encode


class Payload(NamedTuple):
    """The arguments of a call, and their JSON."""

    args: Any
    kwargs: Any
    args_json: bytes
    kwargs_json: bytes
    checked: bool = False  # against the task's type hints

    @property
    def size(self) -> int:
        """Bytes of JSON."""
        return len(self.args_json) + len(self.kwargs_json)


def checked_payload(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Payload:
    """The payload of arguments that are nothing but what JSON knows: `Arguments.prepare` saw to it."""
    return Payload(args, kwargs, _json(args), _json(kwargs), True)


def any_payload(args: Any, kwargs: Any) -> Payload:
    """The payload of whatever a caller passed; dates, decimals and the like are marked as kombu marks them.

    Raises:
        TypeError: something in it is no JSON, and `args` or `kwargs` are no list and no mapping.
    """
    args, kwargs = args or (), kwargs or {}
    if not isinstance(args, list | tuple):
        raise TypeError("task args must be a list or tuple")
    return Payload(args, dict(kwargs), _kombu_json(args), _kombu_json(kwargs))


@dataclass(slots=True)
class Message:
    """A message that is still being written; Celery's signals may change it.

    Args:
        headers: Celery's own (`task`, `id`, `eta`, …) and whatever else travels with the run.
        properties: kombu's, but for those that depend on the queue.
        payload: the arguments.
        follows: what is sent after the run: `callbacks`, `errbacks`, `chain`, `chord`.
        plain: headers and properties are nothing but what JSON knows.
        signer: signs it; None where messages are not signed.
    """

    headers: dict[str, Any]
    properties: dict[str, Any]
    payload: Payload
    follows: dict[str, Any]
    plain: bool
    signer: Signer | None = None

    def changed(self, args: Any, kwargs: Any, follows: dict[str, Any]) -> None:
        """Take what a signal's receivers made of the message; from now on it may hold anything."""
        self.payload, self.follows, self.plain = any_payload(args, kwargs), follows, False

    def encode(self, queue: str) -> bytes:
        """The bytes that lie in `queue`."""
        payload, follows = self.payload, self.follows
        tail = _NOTHING_FOLLOWS if follows is NOTHING_FOLLOWS else _kombu_json(follows)
        body = b"[%b,%b,%b]" % (payload.args_json, payload.kwargs_json, tail)
        if self.signer is not None:
            self.headers[MARKS] = self.signer.marks(self.headers, body, _KIND, _ENCODING)
        properties = self.properties
        properties["delivery_info"] = {"exchange": "", "routing_key": queue}
        # The transport that delivers it gives it one of its own; until then any name will do.
        properties["delivery_tag"] = self.headers["id"]
        envelope = {
            "body": body.decode(), "content-encoding": _ENCODING, "content-type": _KIND,
            "headers": self.headers, "properties": properties,
        }  # fmt: skip
        if self.plain:
            try:
                return _encode(envelope)
            except _UNUSUAL:
                pass
        return _kombu_json(envelope)


def text_of(value: Any, written: bytes) -> str:
    """`value` as logs and monitors show it: without its secrets, and not longer than they like.

    Args:
        written: its JSON, which tells how large it is, and whether there are secrets in it.
    """
    if _SEALED in written:
        value = mask(value)
    if len(written) > _REPR_MOST:
        return str(saferepr(value, _REPR_MOST, maxlevels=_REPR_LEVELS))
    return repr(value)


def _json(value: Any) -> bytes:
    try:
        text = _encode(value)
    except _UNUSUAL:
        return _kombu_json(value)
    # msgspec writes what is no finite number as null, where Python and Celery write NaN.
    return text if b"null" not in text or _finite(value) else _kombu_json(value)


def _kombu_json(value: Any) -> bytes:
    text: str = kombu_json.dumps(value)  # type: ignore[no-untyped-call]
    return text.encode()


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_finite(item) for item in value)
    return True
