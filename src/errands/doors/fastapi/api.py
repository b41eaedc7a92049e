"""A whole application with the endpoints for runs and nothing else."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline

from errands.app import Errands
from errands.doors.fastapi.people import current_person
from errands.doors.fastapi.router import errands_router


def create_api(app: Errands) -> FastAPI:
    """An ASGI application for `uvicorn`: all of `errands_router`, for the holder of `Settings.admin_token`.

    Without a token everything but `/healthz` answers 401. An application that knows people includes
    `errands_router` with a dependency of its own instead.
    """
    api = FastAPIOffline(
        title=f"{app.main or 'Errands'}: runs", description="Background runs: states, actions, health."
    )
    api.add_exception_handler(Exception, _internal_error)
    api.include_router(errands_router(app, person=current_person(app)))
    return api


def _internal_error(_request: Request, _error: Exception) -> JSONResponse:
    """Of what nobody expected, the server's log tells; the answer does not."""
    return JSONResponse({"detail": "internal error"}, 500)
