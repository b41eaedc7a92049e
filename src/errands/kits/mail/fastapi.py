"""The route behind the links to unsubscribe, for FastAPI and Starlette applications."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, HTTPException
from fastapi.responses import HTMLResponse

from errands.deliveries import Deliveries
from errands.kits.mail.bulk import CHANNEL
from errands.kits.mail.unsubscribe import InvalidLink, Unsubscribe

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Unsubscribe</title><p>{}</p>{}</html>'
)


def unsubscribe_router(unsubscribe: Unsubscribe, deliveries: Deliveries) -> APIRouter:
    """`GET` and `POST` of `/unsubscribe/<token>`.

    `POST` is what mail services do when somebody presses their button (RFC 8058), and what the form of the
    page does; it unsubscribes, without a question and without a cookie. `GET` only shows the page: scanners
    follow every link in a mail. 404: we did not make this link.
    """
    router = APIRouter()

    def read(token: str) -> tuple[str, str]:
        try:
            return unsubscribe.read(token)
        except InvalidLink as error:
            raise HTTPException(404, str(error)) from None

    @router.get("/unsubscribe/{token}", include_in_schema=False)
    def page(token: str) -> HTMLResponse:
        address, topic = read(token)
        text = f"Send no more mail{_about(topic)} to {escape(address)}?"
        form = '<form method="post"><button>Unsubscribe</button></form>'
        return HTMLResponse(_PAGE.format(text, form), headers=_HEADERS)

    @router.post("/unsubscribe/{token}", include_in_schema=False)
    async def leave(token: str) -> HTMLResponse:
        address, topic = read(token)
        await deliveries.opt_out(CHANNEL, address, topic, source="link")
        text = f"{escape(address)} gets no more mail{_about(topic)}."
        return HTMLResponse(_PAGE.format(text, ""), headers=_HEADERS)

    return router


def _about(topic: str) -> str:
    return f" about “{escape(topic)}”" if topic else ""
