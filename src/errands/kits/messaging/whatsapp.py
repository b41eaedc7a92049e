"""Messages by the WhatsApp Cloud API (https://developers.facebook.com/docs/whatsapp/cloud-api)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from errands.core import retry_after
from errands.kits.messaging.errors import (
    PermanentMessageError,
    ProviderRefused,
    ProviderUnavailable,
    RecipientOptedOut,
    TemporaryMessageError,
    UnknownOutcomeError,
)
from errands.kits.messaging.http import Http, json_of
from errands.kits.messaging.provider import Content, Receipt, Text

URL = "https://graph.facebook.com/v23.0"

# Meta's error codes (…/cloud-api/support/error-codes), by what follows from them.
_TOO_FAST = frozenset({4, 80007, 130429})  # app, account, number: whoever it is for
_AWAY = frozenset({2, 131016, 131057, 133004})  # the service, or the account while it is worked on
_OUR_SETTINGS = frozenset(
    {0, 3, 10, 33, 190, 368, 131005, 131031, 131042, 131045, 131048, 133006, 133010}
    | set(range(200, 300))  # token, permission, account, payment, number, blocked for spam
)
_LATER = frozenset({1, 131000, 131056})  # something went wrong; too many to this one number
_OPTED_OUT = frozenset({131050})


class WhatsAppMessenger:
    """Sends from one WhatsApp business number.

    Text reaches only those who wrote to the number within the last 24 hours; others need a template.

    Args:
        token: of a system user, with the permission whatsapp_business_messaging (WHATSAPP_TOKEN).
        phone_number_id: Meta's id of the number that sends (WHATSAPP_PHONE_NUMBER_ID).
        url: of the Graph API, with its version.
        timeout: seconds for one message.
    """

    def __init__(self, token: str, phone_number_id: str, *, url: str = URL, timeout: float = 30.0) -> None:
        self._url = f"{url.rstrip('/')}/{phone_number_id}/messages"
        self._http = Http("WhatsApp", timeout=timeout, headers={"Authorization": f"Bearer {token}"})

    async def send(self, to: str, content: Content) -> Receipt:
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": to,
            **_as_json(content),
        }
        response = await self._http.post(self._url, json=body)
        answer = json_of(response)
        if response.is_success:
            return Receipt(_id(response, answer))
        raise _error(response, answer)

    async def aclose(self) -> None:
        await self._http.aclose()


def _as_json(content: Content) -> dict[str, Any]:
    if isinstance(content, Text):
        return {"type": "text", "text": {"preview_url": False, "body": content.body}}
    named = isinstance(content.values, Mapping) and not all(name.isdigit() for name in content.values)
    places = [
        {"type": "text", "text": value, **({"parameter_name": name} if named else {})}
        for name, value in content.named().items()
    ]
    template: dict[str, Any] = {"name": content.name, "language": {"code": content.language}}
    if places:
        template["components"] = [{"type": "body", "parameters": places}]
    return {"type": "template", "template": template}


def _id(response: httpx.Response, answer: dict[str, Any]) -> str:
    try:
        return str(answer["messages"][0]["id"])
    except (KeyError, IndexError, TypeError) as exc:
        raise UnknownOutcomeError(
            f"WhatsApp answered {response.status_code} without a message's id: {response.text[:200]!r}"
        ) from exc


def _error(response: httpx.Response, answer: dict[str, Any]) -> Exception:
    """What Meta's error says. Its code counts, as Meta asks, and the HTTP status only where there is none."""
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    code, data = error.get("code"), error.get("error_data")
    details = data.get("details") if isinstance(data, dict) else None
    text = (
        f"WhatsApp answered {code or response.status_code}: {details or error.get('message') or 'no reason'}"
    )
    wait = retry_after.seconds(response.headers.get("retry-after"))
    if code in _TOO_FAST or code in _AWAY:
        return ProviderUnavailable(text, wait)
    if code in _OUR_SETTINGS:
        return ProviderRefused(f"{text} (WHATSAPP_TOKEN, WHATSAPP_PHONE_NUMBER_ID)")
    if code in _OPTED_OUT:
        return RecipientOptedOut(text)
    if code in _LATER:
        return TemporaryMessageError(text, wait)
    if response.status_code in (429, 503):
        return ProviderUnavailable(text, wait)
    if response.status_code in (401, 403):
        return ProviderRefused(f"{text} (WHATSAPP_TOKEN)")
    if response.status_code >= 500 and code is None:
        # Whoever stands in front of the API said so, and cannot know.
        return UnknownOutcomeError(f"{text}: it may have been taken or not")
    if response.status_code >= 500:
        return TemporaryMessageError(text, wait)
    return PermanentMessageError(text)
