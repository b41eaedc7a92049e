"""The webhook receiver: takes webhooks, checks their signatures, and shows what arrived.

`python -m errands.doors.local.receiver --home FOLDER --http-port N`

| call | answer |
|---|---|
| `POST /hook/<name>` | takes a webhook: 204, or 401 if a secret is known and the signature does not hold; `?status=500` answers that instead, to watch the retries |
| `GET /` | what arrived |
| `GET /api/deliveries?name=<name>` | the same as a JSON list, newest first |
| `DELETE /api/deliveries` | forgets them; 204 |
| `PUT` or `POST /api/secrets` | {name: secret} registers the secrets to check with; 204 |
"""  # noqa: E501 - a table row cannot be broken

from __future__ import annotations

import json
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from errands.core import clock
from errands.doors.local.delivery_store import Delivery, DeliveryStore
from errands.doors.local.pages import application, arguments, page, serve

MOST_BYTES = 1_000_000
DELIVERIES_ON_PAGE = 200


class Receiver:
    """The endpoints over one store."""

    def __init__(self, store: DeliveryStore) -> None:
        self.store = store

    async def hook(self, request: Request) -> Response:
        """Takes one webhook, whatever it is, and answers as its sender asked it to."""
        body = await request.body()
        if len(body) > MOST_BYTES:
            return JSONResponse({"detail": f"More than {MOST_BYTES} bytes."}, status_code=413)
        name = request.path_params["name"]
        headers = dict(request.headers)
        verified, reason = _verify(self.store.secret(name), body, headers)
        status = _wanted_status(request.query_params.get("status"))
        if status is None:
            status = HTTPStatus.UNAUTHORIZED if verified is False else HTTPStatus.NO_CONTENT
        text = body.decode("utf-8", "backslashreplace")
        self.store.add(
            Delivery(
                name=name,
                webhook_id=headers.get("webhook-id", ""),
                event=_event(text, headers),
                verified=verified,
                reason=reason,
                status_code=status,
                body=text,
                headers={key: value for key, value in headers.items() if key.startswith(("webhook-", "x-"))},
                received_at=clock.now().isoformat(),
            )
        )
        return Response(status_code=status)

    async def deliveries(self, request: Request) -> Response:
        """The page."""
        deliveries = list(self.store)
        return page("deliveries.html", deliveries=deliveries[:DELIVERIES_ON_PAGE], total=len(deliveries))

    async def empty(self, request: Request) -> Response:
        """The page's button."""
        self.store.clear()
        return RedirectResponse("/", status_code=303)

    async def api_list(self, request: Request) -> Response:
        """All deliveries, newest first; `name` keeps those of one hook."""
        name = request.query_params.get("name")
        return JSONResponse([asdict(d) for d in self.store if name is None or d.name == name])

    async def api_empty(self, request: Request) -> Response:
        """Forgets all deliveries."""
        self.store.clear()
        return Response(status_code=204)

    async def api_secrets(self, request: Request) -> Response:
        """Registers secrets; those of other hooks stay."""
        try:
            secrets = json.loads(await request.body())
            if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
                raise ValueError("send an object {name: secret}")
            self.store.set_secrets(secrets)
        except ValueError as error:
            return JSONResponse({"detail": str(error)}, status_code=422)
        return Response(status_code=204)


def create(store: DeliveryStore) -> Starlette:
    """The receiver as an application."""
    receiver = Receiver(store)
    return application(
        [
            Route("/", receiver.deliveries),
            Route("/empty", receiver.empty, methods=["POST"]),
            Route("/hook/{name}", receiver.hook, methods=["POST"]),
            Route("/api/deliveries", receiver.api_list, methods=["GET"]),
            Route("/api/deliveries", receiver.api_empty, methods=["DELETE"]),
            Route("/api/secrets", receiver.api_secrets, methods=["PUT", "POST"]),
        ]
    )


def _verify(secret: str | None, body: bytes, headers: dict[str, str]) -> tuple[bool | None, str]:
    if secret is None:
        return None, "no secret is known for this hook"
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except WebhookVerificationError as error:
        return False, str(error)
    except ValueError:
        return False, "malformed signature or body"
    return True, ""


def _wanted_status(text: str | None) -> int | None:
    if text is not None and text.isdecimal() and 200 <= int(text) <= 599:
        return int(text)
    return None


def _event(body: str, headers: dict[str, str]) -> str:
    try:
        event = json.loads(body).get("type")
    except (ValueError, AttributeError):
        event = None
    return event if isinstance(event, str) else headers.get("x-webhook-event", "")


def main() -> None:
    """Serves until it is stopped."""
    options = arguments("Receives webhooks and shows them.").parse_args()
    serve(create(DeliveryStore(Path(options.home) / "webhooks")), options.http_port)


if __name__ == "__main__":
    main()
