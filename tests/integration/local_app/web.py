"""A web application that starts tasks."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local_app.tasks import add, send_mail


def health(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def sum_up(request: Request) -> JSONResponse:
    return JSONResponse({"sum": add.delay(2, 3).get(timeout=20)})


def mail(request: Request) -> JSONResponse:
    return JSONResponse({"task_id": send_mail.delay("ann@example.com", "Grüße").id})


api = Starlette(routes=[Route("/healthz", health), Route("/sum", sum_up), Route("/mail", mail)])
