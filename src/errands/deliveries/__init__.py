"""One row for each recipient of a run that sends to many: what kits that send in bulk share.

A task asks for `Deliveries` by type. `begin` writes the rows, `deliver` works them off, and the rows say at
any moment what became of whom: see `docs/deliveries.md`.
"""

from errands.core.deliveries import (
    Bounced,
    Deferred,
    Delivery,
    DeliveryState,
    Failed,
    Halt,
    Outcome,
    Recipient,
    Sent,
    Skipped,
    Totals,
    Unknown,
    masked,
)
from errands.deliveries.facade import Deliveries

__all__ = [
    "Bounced",
    "Deferred",
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "Failed",
    "Halt",
    "Outcome",
    "Recipient",
    "Sent",
    "Skipped",
    "Totals",
    "Unknown",
    "masked",
]
