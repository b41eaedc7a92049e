"""Who takes the money. Every gateway knows a key again: charging twice with one key is one charge."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import Any, Protocol

import httpx
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from errands import ConfigurationError

_SECONDS = 20.0
# Whole amounts (https://docs.stripe.com/currencies#zero-decimal): a hundred times too much would be charged.
_WITHOUT_CENTS = {
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
    "xpf",
}  # fmt: skip


class Declined(Exception):
    """The charge was refused for good; the text says why, in words for the one who pays."""


class GatewayUnavailable(Exception):
    """The gateway did not do it now; with the same key it may be asked again."""


class Gateway(Protocol):
    """Takes money."""

    async def charge(self, amount: Decimal, *, key: str, description: str) -> str:
        """Charge `amount`, once for each `key`; returns the receipt's number.

        Raises:
            Declined: it was refused.
            GatewayUnavailable: it did not happen now, or nobody knows whether it did.
        """
        ...


class SandboxGateway:
    """Takes no money, for trying things out. An amount that ends in 13 cents is declined."""

    async def charge(self, amount: Decimal, *, key: str, description: str) -> str:
        """As `Gateway.charge`; the receipt follows from the key."""
        if amount % 1 == Decimal("0.13"):
            raise Declined("the card was declined")
        return f"sandbox-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


class StripeGateway:
    """Stripe's API of payment intents, confirmed at once (https://docs.stripe.com/api/payment_intents/create).

    Args:
        secret_key: of the account (`sk_…`).
        currency: three letters, as in "eur"; one that has cents.
        url: where the API is.
        payment_method: what is charged; a real checkout would let the customer choose.
    """

    def __init__(
        self,
        secret_key: str,
        *,
        currency: str = "eur",
        url: str = "https://api.stripe.com",
        payment_method: str = "pm_card_visa",
    ) -> None:
        if currency.lower() in _WITHOUT_CENTS:
            raise ConfigurationError(f"STRIPE_CURRENCY={currency}: it has no cents; take one that has")
        self._currency, self._method = currency, payment_method
        self._http = httpx.AsyncClient(base_url=url, auth=(secret_key, ""), timeout=_SECONDS)

    async def charge(self, amount: Decimal, *, key: str, description: str) -> str:
        """As `Gateway.charge`."""
        form = {
            "amount": str(int(amount * 100)), "currency": self._currency, "description": description,
            "payment_method": self._method, "confirm": "true", "off_session": "true",
        }  # fmt: skip
        told = await self._ask("POST", data=form, headers={"Idempotency-Key": key})
        if told.get("status") == "processing":  # the answer to a known key is that of the first time
            told = await self._ask("GET", f"/{told['id']}")
        if told.get("status") == "processing":
            raise GatewayUnavailable("it is still being processed")
        if told.get("status") != "succeeded":
            raise Declined(f"the payment needs more than a charge: {told.get('status')}")
        return str(told["id"])

    async def _ask(self, method: str, path: str = "", **options: Any) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, f"/v1/payment_intents{path}", **options)
            told: dict[str, Any] = answer.json()
        except (httpx.TransportError, ValueError) as exc:
            raise GatewayUnavailable(f"no answer that can be read: {type(exc).__name__}") from exc
        if answer.status_code in (409, 429) or answer.status_code >= 500:
            raise GatewayUnavailable(f"answered {answer.status_code}")
        error = told.get("error")
        if error:
            raise Declined(str(error.get("message") or error.get("code") or "refused")[:500])
        return told

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class PaymentSettings(BaseSettings):
    """`STRIPE_SECRET_KEY` makes payments real; without it the sandbox takes them."""

    model_config = SettingsConfigDict(extra="ignore")

    stripe_secret_key: SecretStr | None = None
    stripe_currency: str = "eur"


def gateway() -> Gateway:
    """The gateway that the environment asks for."""
    settings = PaymentSettings()
    if settings.stripe_secret_key is None:
        return SandboxGateway()
    return StripeGateway(settings.stripe_secret_key.get_secret_value(), currency=settings.stripe_currency)
