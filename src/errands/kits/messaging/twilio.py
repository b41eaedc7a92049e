"""Messages by Twilio (https://www.twilio.com/docs/messaging/api/message-resource)."""

from __future__ import annotations

import json
from typing import Any

import httpx

from errands.core import retry_after
from errands.kits.messaging.errors import (
    PermanentMessageError,
    ProviderRefused,
    ProviderUnavailable,
    RecipientOptedOut,
    UnknownOutcomeError,
)
from errands.kits.messaging.http import Http, json_of
from errands.kits.messaging.provider import Content, Receipt, Text

URL = "https://api.twilio.com"

# Twilio's error codes (https://www.twilio.com/docs/api/errors), by what follows from them.
_OUR_SETTINGS = frozenset(
    {20003, 20005, 20404, 21212, 21603, 21606, 21659, 21660, 21701, 21703}  # account, sender, service
)
_OPTED_OUT = frozenset({21610})


class TwilioMessenger:
    """Sends by SMS, or by WhatsApp where the sender is `whatsapp:+49…`.

    Twilio has no key by which it would know a message that comes twice: what is not answered is unknown.

    Args:
        account_sid, auth_token: of the account (TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN).
        sender: a number in E.164, `whatsapp:` and a number, or a messaging service's SID, `MG…`
            (TWILIO_FROM).
        url: of the API.
        timeout: seconds for one message.
    """

    def __init__(
        self, account_sid: str, auth_token: str, sender: str, *, url: str = URL, timeout: float = 30.0
    ) -> None:
        self._url = f"{url.rstrip('/')}/2010-04-01/Accounts/{account_sid}/Messages.json"
        self._sender = {"MessagingServiceSid" if sender.startswith("MG") else "From": sender}
        self._prefix = "whatsapp:" if sender.startswith("whatsapp:") else ""
        self._http = Http("Twilio", timeout=timeout, auth=(account_sid, auth_token))

    async def send(self, to: str, content: Content) -> Receipt:
        form = {"To": f"{self._prefix}{to}", **self._sender}
        if isinstance(content, Text):
            form["Body"] = content.body
        else:
            form |= {"ContentSid": content.name, "ContentVariables": json.dumps(content.named())}
        response = await self._http.post(self._url, data=form)
        answer = json_of(response)
        if not response.is_success:
            raise _error(response, answer)
        if not isinstance(answer.get("sid"), str):
            raise UnknownOutcomeError(
                f"Twilio answered {response.status_code} without a message's SID: {response.text[:200]!r}"
            )
        return Receipt(answer["sid"])

    async def aclose(self) -> None:
        await self._http.aclose()


def _error(response: httpx.Response, answer: dict[str, Any]) -> Exception:
    status, code = response.status_code, answer.get("code")
    text = f"Twilio answered {code or status}: {answer.get('message') or 'no reason'}"
    if status in (429, 503):  # not processed, as Twilio says
        return ProviderUnavailable(text, retry_after.seconds(response.headers.get("retry-after")))
    if status >= 500:
        return UnknownOutcomeError(f"{text}: it may have been taken or not")
    if status in (401, 403) or code in _OUR_SETTINGS:
        return ProviderRefused(f"{text} (TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, TWILIO_FROM)")
    if code in _OPTED_OUT:
        return RecipientOptedOut(text)
    return PermanentMessageError(text)
