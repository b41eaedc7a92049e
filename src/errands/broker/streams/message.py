"""From an entry of a stream to a message, and what is told when it is none."""

from __future__ import annotations

import binascii
import math
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from kombu.transport import virtual
from kombu.utils.json import loads

from errands.broker.streams.layout import split_tag
from errands.broker.streams.moment import is_marked

_decode = msgspec.json.decode

# kombu's JSON writes what JSON does not know as an object of this key.
_MARKED = b'"__type__"'
_JSON = "application/json"
_COUNT = "x-delivery-count"


# kombu publishes no types.
_Message: Any = virtual.Message


class NotAMessage(ValueError):
    """An entry cannot be delivered; the text says why."""


class NotDue(Exception):
    """A message came before its time, which is `due_ms` (since 1970); `run_id` is "" where it has none."""

    def __init__(self, due_ms: int, run_id: str) -> None:
        self.due_ms, self.run_id = due_ms, run_id
        super().__init__(due_ms, run_id)


class Message(_Message):
    """A message of kombu's that says what is wrong with its body by an error of our own."""

    _state: str  # of its acknowledgement: "RECEIVED" at first

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **options)
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as exc:
            raise NotAMessage(f"{type(exc).__name__}: {exc}") from exc

    def ack_log_error(self, logger: Any, errors: Any, multiple: bool = False) -> None:
        """Acknowledge. Nothing is sent by that, so that nothing can go wrong on the way."""
        if self._state != "RECEIVED" or self.channel.no_ack_consumers:
            super().ack_log_error(logger, errors, multiple)
        else:
            self.channel.qos.ack(self.delivery_tag)
            self._state = "ACK"

    def _decode(self) -> Any:
        """The payload. Plain JSON, as nearly all of it is, takes a twentieth of kombu's time."""
        body = self.body
        plain = self.content_type == _JSON and (self.accept is None or _JSON in self.accept)
        if plain and type(body) is bytes and _MARKED not in body:
            try:
                return _decode(body)
            except (msgspec.MsgspecError, UnicodeError):
                pass  # another encoding, or kombu says what is wrong with it
        return super()._decode()


def unpack(fields: list[bytes], tag: str) -> dict[str, Any]:
    """The message in an entry, with its delivery tag, and marked when it was delivered before.

    Raises:
        NotAMessage: it is none.
        NotDue: it is to start later.
    """
    try:
        if fields[0] != b"m":
            fields = _message_first(fields)
        raw = fields[1]
        message: dict[str, Any] = loads(raw) if _MARKED in raw else _decode(raw)  # type: ignore[no-untyped-call]
        properties = message["properties"]
        info = properties["delivery_info"]
        if type(info) is not dict:
            raise NotAMessage("its properties are not those of a message")
        headers = message.get("headers")
        if type(headers) is not dict:
            headers = message["headers"] = {}
        properties["delivery_tag"] = tag
        # A copy that a task has sent on carries what was said of the first.
        headers.pop(_COUNT, None)
        was_delayed = len(fields) == 4 and fields[2] == b"d"
        if len(fields) > 2 and not was_delayed and not is_marked(fields):
            info["redelivered"] = headers["redelivered"] = True
            count = _field(fields, b"n")
            if count:
                headers[_COUNT] = int(count)
        elif "redelivered" in headers and not info.get("redelivered"):
            del headers["redelivered"]
        if headers.get("eta"):
            _be_due(headers, info, tag, was_delayed)
    except (NotAMessage, NotDue):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as exc:
        raise NotAMessage(f"{type(exc).__name__}: {exc}") from exc
    return message


def due_ms(eta: Any) -> int:
    """When a message of this `eta` header is due, in ms since 1970; 0 when it has none."""
    at = _timestamp(eta) if eta else None
    return math.ceil(at * 1000) if at is not None else 0


def _be_due(headers: dict[str, Any], info: dict[str, Any], tag: str, was_delayed: bool) -> None:
    """What is delivered is due by the server's clock: Celery must not hold it by this machine's.

    A message of ours was put by its due time. Any other one that was not delayed may have been written into
    the stream at once: the entry's id says when that was, by the server's clock.

    Raises:
        NotDue: that was before its time.
    """
    at, now = _timestamp(headers["eta"]), time.time()
    if at is None:
        return
    due, put_at = math.ceil(at * 1000), split_tag(tag)[1].partition("-")[0]
    if not was_delayed and "errands" not in headers and due > int(put_at):
        run_id = headers.get("id")
        raise NotDue(due, run_id if isinstance(run_id, str) else "")
    if at > now:
        info["eta"] = headers["eta"]  # as it was sent, and signed
        headers["eta"] = datetime.fromtimestamp(now, UTC).isoformat()


def _timestamp(eta: Any) -> float | None:
    try:
        moment = eta if isinstance(eta, datetime) else datetime.fromisoformat(eta)
    except (ValueError, TypeError):
        return None  # Celery refuses the message, and says so
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _message_first(fields: list[bytes]) -> list[bytes]:
    raw = _field(fields, b"m")
    if raw is None:
        raise NotAMessage('it has no field "m"')
    rest = [part for i in range(0, len(fields), 2) if fields[i] != b"m" for part in fields[i : i + 2]]
    return [b"m", raw, *rest]


def _field(fields: list[bytes], name: bytes) -> bytes | None:
    for i in range(0, len(fields), 2):
        if fields[i] == name:
            return fields[i + 1]
    return None
