"""What the small local pages share: templates, style sheet, headers that keep foreign content harmless."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Lifespan

from errands.doors.local.ports import LOOPBACK

FOLDER = Path(__file__).parent
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

templates = Environment(
    loader=PackageLoader("errands.doors.local"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def application(routes: list[BaseRoute], lifespan: Lifespan[Starlette] | None = None) -> Starlette:
    """An application for this machine only: any other host name in a request is refused (DNS rebinding)."""
    return Starlette(
        routes=[*routes, Mount("/static", StaticFiles(directory=FOLDER / "static"))],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"]),
            Middleware(BaseHTTPMiddleware, dispatch=_add_headers),
        ],
        lifespan=lifespan,
    )


def page(name: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A rendered template; everything in it is escaped."""
    return HTMLResponse(templates.get_template(name).render(**values), status_code=status)


def not_found(request: Request, what: str) -> Response:
    """404, as a page or as JSON, by the path."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"detail": f"No such {what}."}, status_code=404)
    return page("missing.html", 404, what=what)


async def _add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
    # A page of another site must not empty the inbox or register secrets for its visitor.
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") == "cross-site":
        return JSONResponse({"detail": "Not from another site."}, status_code=403)
    response = await call_next(request)
    response.headers.setdefault("Content-Security-Policy", PAGE_POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that each of these servers has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--home", type=Path, required=True, help="folder that keeps what arrives")
    parser.add_argument("--http-port", type=int, required=True, help="port of the page, on 127.0.0.1")
    return parser


def serve(app: Starlette, port: int) -> None:
    """Serves until SIGTERM; requests of the page itself are not logged."""
    uvicorn.run(
        app, host=LOOPBACK, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=1
    )
