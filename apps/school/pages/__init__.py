"""The few pages that people see without signing in. Nothing on them comes from anywhere else."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from school.app import SCHOOL_NAME

_FOLDER = Path(__file__).parent
_STYLE = (_FOLDER / "page.css").read_text("utf-8")
# The page of that name runs it; the others run none.
_SCRIPTS = {path.stem: path.read_text("utf-8") for path in _FOLDER.glob("*.js")}
_pages = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
)


def _source(text: str) -> str:
    """As a Content-Security-Policy names what stands in the page itself."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _policy(script: str) -> str:
    scripts = f"script-src {_source(script)}; connect-src 'self'; " if script else ""
    return (
        f"default-src 'none'; style-src {_source(_STYLE)}; {scripts}form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )


_HEADERS = {
    # The address of a page may hold a token or a number: no other site gets to see it.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}


def page(name: str, status: int = 200, /, **values: object) -> HTMLResponse:
    """The page `name`, filled in."""
    script = _SCRIPTS.get(name, "")
    html = _pages.get_template(f"{name}.html").render(
        school=SCHOOL_NAME, style=_STYLE, script=script, **values
    )
    return HTMLResponse(html, status, {**_HEADERS, "Content-Security-Policy": _policy(script)})


def prefers_html(request: Request) -> bool:
    """Whether a request names HTML before JSON, as browsers' do; `*/*` alone does not."""
    accept = request.headers.get("accept", "")
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    html = kinds.index("text/html") if "text/html" in kinds else None
    json = kinds.index("application/json") if "application/json" in kinds else len(kinds)
    return html is not None and html < json
