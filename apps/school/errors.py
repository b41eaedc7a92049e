"""What is answered when a request cannot be served: `{"detail": …}`, without a traceback or a secret."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse


def install(api: FastAPI) -> None:
    """Let `api` answer so."""
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(Exception, _broken)


async def _invalid(_: Request, exc: Exception) -> JSONResponse:
    """Every problem of the input, without the input: it may hold a password, or letters that are no text."""
    errors = exc.errors() if isinstance(exc, RequestValidationError) else []
    detail = [{"loc": [_text(part) for part in error["loc"]], "msg": _text(error["msg"])} for error in errors]
    return JSONResponse({"detail": detail}, 422)


async def _broken(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({"detail": "Something went wrong on our side; it is in our log."}, 500)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().removeprefix("Value error, ")
    return value
