"""What becomes of each recipient of a run that sends to many: states, outcomes, rows as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class DeliveryState(StrEnum):
    """Where one recipient is."""

    QUEUED = "queued"
    SENDING = "sending"  # its provider is being called, or was when its worker died
    SENT = "sent"  # taken over by the provider
    DEFERRED = "deferred"  # not now; tried again by itself
    BOUNCED = "bounced"  # refused by who receives for it
    FAILED = "failed"  # refused otherwise, or given up
    UNKNOWN = "unknown"  # it may have been sent or not; never sent again by itself
    SKIPPED = "skipped"  # never to be sent: opted out, twice in the list, no address


OPEN = frozenset({DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.DEFERRED})
REFUSED = frozenset({DeliveryState.BOUNCED, DeliveryState.FAILED})


@dataclass(frozen=True, slots=True)
class Recipient:
    """One to send to.

    Args:
        address: in its one form: two that are equal are the same recipient.
        person: the person's id, by which `erase_person` finds it.
        data: what goes to this one alone (values for a template), as JSON; kept with the row.
        skip: why nothing is sent to it; None: it is.
    """

    address: str
    person: str | None = None
    data: dict[str, Any] | None = None
    skip: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One recipient of a run, as it is kept.

    Attributes:
        run_id, position: what it is known by; positions count from 0 in the order of the recipients.
        channel: "mail", "messages".
        address: None where it was erased.
        person, data: as the `Recipient` had them.
        state: where it is.
        reason: why, in words, where that is not plain.
        provider_id: what the provider calls it.
        tries: how often the provider was called for it.
        at: when it came to its state.
        retry_at: when it is tried again, if it is deferred.
    """

    run_id: str
    position: int
    channel: str
    address: str | None
    person: str | None
    data: dict[str, Any] | None
    state: DeliveryState
    reason: str | None
    provider_id: str | None
    tries: int
    at: datetime
    retry_at: datetime | None

    @property
    def id(self) -> str:
        """One word for the row, the same at every try: for providers that know again what comes twice."""
        return f"{self.run_id}:{self.position}"


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took it over, and calls it `provider_id`."""

    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """Not sent; may be sent later. `wait` is the least number of seconds until then, if somebody said so."""

    reason: str
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Bounced:
    """Refused for good by who receives for the address."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Refused for good, or given up."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can say whether it was sent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Found out now that nothing may be sent to it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Nothing was sent, and it was not this recipient's fault: the row waits as before, without a try
    counted, and the whole run ends its attempt with `error`. For a provider that is away, busy, or lets
    nobody in."""

    error: Exception


Outcome = Sent | Deferred | Bounced | Failed | Unknown | Skipped | Halt


@dataclass(frozen=True, slots=True)
class Totals:
    """How many recipients of a run are in each state."""

    counts: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    def __getitem__(self, state: str) -> int:
        return self.counts.get(state, 0)

    @property
    def recipients(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def open(self) -> int:
        """Those of which more is to come."""
        return sum(self[state] for state in OPEN)

    def as_dict(self) -> dict[str, int]:
        """Every state and how many are in it, and `recipients`: all of them."""
        return {"recipients": self.recipients, **{state.value: self[state] for state in DeliveryState}}


def masked(address: str | None) -> str:
    """An address for those whom it is none of their business: `a***@example.com`, `+49***56`."""
    if not address:
        return "***"
    local, at, domain = address.rpartition("@")
    if at:
        return f"{local[:1]}***@{domain}"
    return f"{address[:3]}***{address[-2:]}" if len(address) > 7 else "***"
