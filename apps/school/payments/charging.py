"""One charge, however often it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from errands import Run
from school.payments.gateway import Declined, Gateway
from school.payments.tables import PaymentStatus


@dataclass(frozen=True, slots=True)
class Charge:
    """What came of a charge: its receipt, or why it was declined."""

    status: PaymentStatus
    receipt: str | None = None
    reason: str | None = None

    @property
    def paid(self) -> bool:
        """Whether the money was taken."""
        return self.status is PaymentStatus.CHARGED

    def as_json(self) -> dict[str, Any]:
        """What a task returns."""
        return {"status": self.status.value, "receipt": self.receipt, "reason": self.reason}


async def charge_once(run: Run, gateway: Gateway, amount: Decimal, *, scope: str, description: str) -> Charge:
    """Charge `amount`, once for each `scope` ("payment:17"), whichever runs ask for it.

    What was sent to the gateway and not answered is asked again with the same key, which the gateway knows.

    Raises:
        GatewayUnavailable: it did not happen now; let the run be tried again.
    """
    effect = run.effect("charge", scope=scope, safe_to_repeat=True)
    try:
        receipt = await effect.once(gateway.charge, amount, key=effect.key, description=description)
    except Declined as refusal:
        return Charge(PaymentStatus.DECLINED, reason=str(refusal))
    return Charge(PaymentStatus.CHARGED, receipt)
