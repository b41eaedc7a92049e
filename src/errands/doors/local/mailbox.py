"""The mail catcher: takes every mail over SMTP, sends none on, and shows them on a page.

`python -m errands.doors.local.mailbox --home FOLDER --http-port N --smtp-port N`

| call | answer |
|---|---|
| `GET /` | the inbox |
| `GET /messages/<id>` | one mail |
| `GET /api/messages?to=<address>` | JSON list, newest first: id, from, to (a list), subject, text, html, attachments [{filename, content_type, size, url}], received_at |
| `GET /api/messages/<id>` | one of these |
| `DELETE /api/messages` | empties the inbox; 204 |
| `GET /phone`, `GET /api/phone?to=<number>` | what was sent to phones, where that goes into a file: see `phone.py` |
"""  # noqa: E501 - a table row cannot be broken

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, Envelope, Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from errands.doors.local.mail_store import Mail, MailStore
from errands.doors.local.pages import application, arguments, not_found, page, serve
from errands.doors.local.phone import FILE, Phone
from errands.doors.local.ports import LOOPBACK

MOST_BYTES = 30_000_000
MAILS_ON_PAGE = 200
# The mail's own HTML: shown without script, form or any request to the outside.
MAIL_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Mailbox:
    """The endpoints over one store."""

    def __init__(self, store: MailStore) -> None:
        self.store = store

    async def inbox(self, request: Request) -> Response:
        """The list of mails."""
        mails = list(self.store)
        return page("inbox.html", mails=mails[:MAILS_ON_PAGE], total=len(mails))

    async def message(self, request: Request) -> Response:
        """One mail."""
        mail = self._mail(request)
        return not_found(request, "mail") if mail is None else page("mail.html", mail=mail)

    async def html(self, request: Request) -> Response:
        """The HTML part of a mail by itself, for the frame on its page."""
        mail = self._mail(request)
        if mail is None:
            return not_found(request, "mail")
        return HTMLResponse(mail.html, headers={"Content-Security-Policy": MAIL_POLICY})

    async def attachment(self, request: Request) -> Response:
        """An attached file, always as a download."""
        found = self.store.attachment(request.path_params["mail_id"], request.path_params["index"])
        if found is None:
            return not_found(request, "attachment")
        attachment, content = found
        disposition = f"attachment; filename*=UTF-8''{quote(attachment.filename, safe='')}"
        return Response(
            content,
            media_type=attachment.content_type,
            headers={"Content-Disposition": disposition, "Content-Security-Policy": MAIL_POLICY},
        )

    async def empty(self, request: Request) -> Response:
        """The inbox page's button."""
        self.store.clear()
        return RedirectResponse("/", status_code=303)

    async def api_list(self, request: Request) -> Response:
        """All mails, newest first; `to` keeps those to one address."""
        wanted = request.query_params.get("to", "").lower()
        mails = [m for m in self.store if not wanted or wanted in (address.lower() for address in m.to)]
        return JSONResponse([_as_json(mail) for mail in mails])

    async def api_message(self, request: Request) -> Response:
        """One mail."""
        mail = self._mail(request)
        return not_found(request, "mail") if mail is None else JSONResponse(_as_json(mail))

    async def api_empty(self, request: Request) -> Response:
        """Forgets all mails."""
        self.store.clear()
        return Response(status_code=204)

    def _mail(self, request: Request) -> Mail | None:
        return self.store.get(request.path_params["mail_id"])


class Handler:
    """What aiosmtpd calls with each mail."""

    def __init__(self, store: MailStore) -> None:
        self.store = store

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keeps the mail before it says yes to the sender."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.store.add(content, envelope.mail_from or "", list(envelope.rcpt_tos))
        return "250 OK: caught"


def create(store: MailStore, smtp_port: int, phone: Phone) -> Starlette:
    """The page and its API; the SMTP server runs as long as it does."""

    def session() -> SMTP:
        return SMTP(Handler(store), hostname="localhost", data_size_limit=MOST_BYTES, enable_SMTPUTF8=True)

    @asynccontextmanager
    async def catching(app: Starlette) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_server(session, LOOPBACK, smtp_port)
        try:
            yield
        finally:
            server.close()

    mailbox = Mailbox(store)
    return application(
        [
            Route("/", mailbox.inbox),
            Route("/empty", mailbox.empty, methods=["POST"]),
            Route("/messages/{mail_id}", mailbox.message),
            Route("/messages/{mail_id}/html", mailbox.html),
            Route("/messages/{mail_id}/attachments/{index:int}", mailbox.attachment),
            Route("/api/messages", mailbox.api_list, methods=["GET"]),
            Route("/api/messages", mailbox.api_empty, methods=["DELETE"]),
            Route("/api/messages/{mail_id}", mailbox.api_message),
            *phone.routes(),
        ],
        lifespan=catching,
    )


def _as_json(mail: Mail) -> dict[str, Any]:
    fields = mail.as_json()
    for index, attachment in enumerate(fields["attachments"]):
        attachment["url"] = f"/messages/{mail.id}/attachments/{index}"
    return fields


def main() -> None:
    """Serves until it is stopped."""
    parser = arguments("Catches mails and shows them.")
    parser.add_argument("--smtp-port", type=int, required=True, help="port to take mails on, on 127.0.0.1")
    options = parser.parse_args()
    home = Path(options.home)
    serve(create(MailStore(home / "mail"), options.smtp_port, Phone(home / FILE)), options.http_port)


if __name__ == "__main__":
    main()
