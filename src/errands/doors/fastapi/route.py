"""A route that tells Errands' errors as HTTP, and whose answers nobody may keep."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from errands.broker.limits import LimitNotFound
from errands.core.errors import (
    ActionRefused,
    BrokerUnavailable,
    ConfigurationError,
    ErrandsError,
    InvalidArguments,
    RunNotFound,
)
from errands.ops.errors import NotAllowed, QueueNotFound, RecordUnavailable, ScheduleNotFound

NO_STORE = {"Cache-Control": "no-store"}

_STATUS: dict[type[ErrandsError], int] = {
    RunNotFound: 404,
    QueueNotFound: 404,
    LimitNotFound: 404,
    ScheduleNotFound: 404,
    InvalidArguments: 422,
    ConfigurationError: 422,
    NotAllowed: 403,
    ActionRefused: 409,
    BrokerUnavailable: 503,
    RecordUnavailable: 503,
}
# These quote addresses and drivers, which is nothing for whoever asks over HTTP.
_IN_OTHER_WORDS = {503: "not available at the moment: a server behind this one does not answer"}


class ErrandsRoute(APIRoute):
    """Used by `errands_router`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI calls this once a route; what it returns, once a request."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                response = await handle(request)
            except HTTPException as exc:
                exc.headers = {**(exc.headers or {}), **NO_STORE}
                raise
            except tuple(_STATUS) as exc:
                status = next(code for kind, code in _STATUS.items() if isinstance(exc, kind))
                detail = _IN_OTHER_WORDS.get(status, str(exc))
                headers = NO_STORE | ({"Retry-After": "5"} if status == 503 else {})
                raise HTTPException(status, detail, headers=headers) from exc
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return handler
