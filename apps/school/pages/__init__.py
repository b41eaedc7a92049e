"""The few pages that people see without signing in. No script, no font and no picture from anywhere."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from fastapi.responses import HTMLResponse

from school.app import SCHOOL_NAME

_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "page.css").read_text("utf-8")
_pages = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)
_style_hash = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_style_hash}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # The address of a page may hold a token or a number: no other site gets to see it.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """The page `name`, filled in."""
    html = _pages.get_template(f"{name}.html").render(school=SCHOOL_NAME, style=_STYLE, **values)
    return HTMLResponse(html, status, _HEADERS)
