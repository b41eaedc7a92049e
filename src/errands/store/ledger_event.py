"""An event as the ledger reads it: what it only passes on (arguments, results) stays the JSON it came as."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from errands.core.events import Event, Kind
from errands.core.states import State

# What a column holds on both databases; an event beyond that cannot have happened.
_Name = Annotated[str, Meta(max_length=255)]
_Time = Annotated[float, Meta(ge=0, lt=253_402_300_800)]  # 1970 to the end of the year 9999
_Number = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Json = Raw | UnsetType


class LedgerEvent(msgspec.Struct, kw_only=True, gc=False):
    """The fields of `errands.core.events.Event`; `args`, `kwargs`, `options`, `result`, `progress` and
    `message` are undecoded JSON."""

    kind: Kind
    run_id: Annotated[str, Meta(min_length=1, max_length=255)]
    at: _Time
    task: _Name | None = None
    queue: _Name | None = None
    owner: _Name | None = None
    subject: _Name | None = None
    parent_id: _Name | None = None
    root_id: _Name | None = None
    args: _Json = UNSET
    kwargs: _Json = UNSET
    options: _Json = UNSET
    eta: _Time | None = None
    expires: _Time | None = None
    attempt: _Number | None = None
    max_attempts: _Number | None = None
    worker: _Name | None = None
    result: _Json = UNSET
    error: dict[str, str | None] | None = None
    progress: _Json = UNSET
    checkpoint: _Json = UNSET
    duration: float | None = None
    note: str | None = None
    message: _Json = UNSET

    @property
    def queued_as(self) -> State:
        """Of a "queued" event: the state that the run is in after it."""
        return State.SCHEDULED if self.eta is not None and self.eta > self.at else State.QUEUED

    @classmethod
    def from_json(cls, raw: bytes) -> LedgerEvent:
        """Read an entry of the event stream.

        Raises:
            ValueError: it is no event, or tells what cannot have happened (an id of a megabyte, a time before
                the calendar).
        """
        try:
            return _DECODER.decode(raw)
        except (msgspec.MsgspecError, UnicodeError) as exc:
            found = _tolerant(raw)
            if found is None:
                raise ValueError(str(exc)) from exc
            return found

    @classmethod
    def of(cls, event: Event) -> LedgerEvent:
        """The same event, as it looks after its way through the stream. Raises as `from_json` does."""
        return cls.from_json(event.to_json())


def text(value: Raw | UnsetType) -> str | None:
    """The JSON text to store; None for what is absent or null."""
    if value is UNSET:
        return None
    raw = bytes(value)
    return None if raw == b"null" else raw.decode()


_DECODER = msgspec.json.Decoder(LedgerEvent)
_JSON_FIELDS = ("args", "kwargs", "options", "result", "progress", "checkpoint", "message")


def _tolerant(raw: bytes) -> LedgerEvent | None:
    """Python's own reader takes what strict JSON has no room for: halves of surrogate pairs, NaN, infinities.
    Escaped, the first go on as they are; the others become null."""
    try:
        values = json.loads(raw, parse_constant=lambda _: None)
        kept = {name: values.pop(name) for name in _JSON_FIELDS if name in values}
        event = msgspec.convert(values, LedgerEvent)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    encoded: dict[str, Any] = {name: Raw(json.dumps(value).encode()) for name, value in kept.items()}
    return msgspec.structs.replace(event, **encoded)
