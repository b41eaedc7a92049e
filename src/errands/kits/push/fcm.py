"""Push by Firebase Cloud Messaging, HTTP v1 (https://firebase.google.com/docs/cloud-messaging)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from errands import ConfigurationError
from errands.core import clock
from errands.kits.push.access_token import AccessTokens
from errands.kits.push.devices import FCM, Device
from errands.kits.push.errors import DeviceGone, PushFailed, PushRefused
from errands.kits.push.notice import PushMessage
from errands.kits.push.provider import Clients, no_answer, not_now

_URL = "https://fcm.googleapis.com"
# Words that FCM keeps for itself as keys of data.
_RESERVED = ("from", "message_type", "gcm", "google")


class FcmPush:
    """Sends to apps and browsers that registered with Firebase.

    Args:
        account: the key of a service account of the project, as its JSON file holds it.
        project: the project's id; by default that of the account.
        timeout: seconds for one request.
        url: where FCM is; for tests.
    """

    kind = FCM

    def __init__(
        self, account: Mapping[str, Any], *, project: str | None = None, timeout: float = 15.0,
        url: str = _URL,
    ) -> None:  # fmt: skip
        self._tokens = AccessTokens(account)
        project = project or account.get("project_id")
        if not project:
            raise ConfigurationError("FCM needs the id of a project: set ERRANDS_FCM_PROJECT")
        self._send_url = f"{url}/v1/projects/{project}/messages:send"
        self._clients = Clients(lambda: httpx.AsyncClient(timeout=timeout))

    @classmethod
    def from_file(cls, path: Path, *, project: str | None = None) -> FcmPush:
        """With the service account's key in a file.

        Raises:
            ConfigurationError: it can't be read.
        """
        try:
            account = json.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise ConfigurationError(f"ERRANDS_FCM_CREDENTIALS: {path} can't be read: {exc}") from exc
        if not isinstance(account, dict):
            raise ConfigurationError(f"ERRANDS_FCM_CREDENTIALS: {path} is no key of a service account")
        return cls(account, project=project)

    def service(self, device: Device) -> str:
        return "fcm"

    async def send(self, device: Device, message: PushMessage) -> None:
        body = {"message": {"token": device.address["token"], **content(message)}}
        response = await self._post(body)
        if response.status_code == 401 and _code(response) != "THIRD_PARTY_AUTH_ERROR":
            # The token was taken back, or our clock is wrong: a new one tells which.
            self._tokens.reject(response.request.headers["authorization"].removeprefix("Bearer "))
            response = await self._post(body)
        check(response)

    async def aclose(self) -> None:
        await self._clients.aclose()

    async def _post(self, body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {await self._tokens.get()}"}
        try:
            return await self._clients.get().post(self._send_url, json=body, headers=headers)
        except httpx.HTTPError as exc:
            raise no_answer("fcm", exc) from exc


def content(message: PushMessage) -> dict[str, Any]:
    """A message as FCM has it, but for whom it is for."""
    android: dict[str, Any] = {
        "priority": "HIGH" if message.urgent else "NORMAL",
        "ttl": f"{message.ttl}s",
        # What comes twice, or replaces what is of its topic, is shown in the place of the other.
        "notification": {"tag": message.topic or message.id},
    }
    if message.topic is not None:
        android["collapse_key"] = message.topic
    return {
        "notification": {"title": message.title, "body": message.message},
        "data": {
            **{_key(key): _text(value) for key, value in message.data.items()},
            "notification_id": message.id,
            "kind": message.kind,
        },
        "android": android,
        "apns": {
            "headers": {
                "apns-priority": "10" if message.urgent else "5",
                "apns-expiration": str(int(clock.timestamp()) + message.ttl if message.ttl else 0),
                "apns-collapse-id": message.topic or message.id,
            }
        },
    }


def check(response: httpx.Response) -> None:
    """Return if FCM took the message; else raise what its error code says
    (https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode).

    Raises:
        DeviceGone: UNREGISTERED; INVALID_ARGUMENT about the token.
        PushRefused: INVALID_ARGUMENT about anything else; SENDER_ID_MISMATCH; THIRD_PARTY_AUTH_ERROR.
        PushFailed: QUOTA_EXCEEDED, UNAVAILABLE, INTERNAL; what the account must not do now.
    """
    if response.is_success:
        return
    code, text = _code(response), _told(response)
    if code == "UNREGISTERED" or (code == "INVALID_ARGUMENT" and _of_token(response)):
        raise DeviceGone(f"fcm answered {text}: the device's token is removed")
    if code == "SENDER_ID_MISMATCH":
        # Of one token or, with another project's account in the settings, of all: so none is removed for it.
        raise PushRefused(
            f"fcm answered {text}: the app registered with another project than this service account's "
            "(ERRANDS_FCM_CREDENTIALS, ERRANDS_FCM_PROJECT)"
        )
    if code == "THIRD_PARTY_AUTH_ERROR":
        raise PushRefused(f"fcm answered {text}: look at the APNs or Web Push keys in the Firebase console")
    if response.status_code == 429 or response.status_code >= 500:
        raise not_now("fcm", response, text)
    if response.status_code in (401, 403):
        # A mistake in the set-up, which somebody will mend: nobody's message is lost for it meanwhile.
        raise PushFailed(
            f"fcm answered {text}: may this service account send for this project (ERRANDS_FCM_CREDENTIALS, "
            "ERRANDS_FCM_PROJECT), and is the Cloud Messaging API turned on?",
            pause=True,
        )
    raise PushRefused(f"fcm answered {text}")


def _error(response: httpx.Response) -> dict[str, Any]:
    try:
        error = response.json()["error"]
    except (ValueError, LookupError, TypeError):  # a proxy's page, say
        return {}
    return error if isinstance(error, dict) else {}


def _details(response: httpx.Response) -> list[dict[str, Any]]:
    details = _error(response).get("details")
    return [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []


def _code(response: httpx.Response) -> str:
    """FCM's own code where there is one, else the general one of Google's services."""
    for detail in _details(response):
        if "errorCode" in detail:
            return str(detail["errorCode"])
    return str(_error(response).get("status", ""))


def _of_token(response: httpx.Response) -> bool:
    """Whether INVALID_ARGUMENT is about the token. It is told in either of two ways."""
    fields = [
        str(violation.get("field"))
        for detail in _details(response)
        for violation in detail.get("fieldViolations") or ()
        if isinstance(violation, dict)
    ]
    if fields:
        return fields == ["message.token"]
    return "registration token" in str(_error(response).get("message", "")).lower()


def _told(response: httpx.Response) -> str:
    parts = [str(response.status_code), _code(response), str(_error(response).get("message", ""))[:300]]
    return " ".join(part for part in parts if part)


def _key(key: str) -> str:
    return f"data_{key}" if key.lower().startswith(_RESERVED) else key


def _text(value: Any) -> str:
    """FCM carries texts only: others go as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
