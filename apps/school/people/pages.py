"""The page behind the link in the mail about a forgotten password."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from school.access import Reading, Writing
from school.pages import page
from school.people import passwords, service
from school.people.endpoints import ResetConfirmation

router = APIRouter(include_in_schema=False)


@router.get("/password-reset")
async def form(token: Annotated[str, Query(max_length=200)] = "") -> HTMLResponse:
    """The form."""
    return page("password_reset", token=token, done=False, problem=None)


@router.post("/password-reset/page")
async def submit(request: Request, reading: Reading, session: Writing) -> HTMLResponse:
    """What the form sends: the same as `POST /password-reset/confirm`, answered as a page."""
    fields = {
        name: values[-1]
        for name, values in parse_qs((await request.body()).decode("utf-8", "replace")).items()
    }
    token = fields.get("token", "")
    try:
        body = ResetConfirmation(token=token, password=fields.get("password", ""))
    except ValidationError:
        problem = "A password has 8 to 200 characters."
        return page("password_reset", 422, token=token[:200], done=False, problem=problem)
    problem = "This link does not hold any more; ask for a new one."
    if not await service.reset_holds(reading, body.token):
        return page("password_reset", 400, token="", done=False, problem=problem)
    try:
        await service.reset_password(session, body.token, await passwords.hash_password(body.password))
    except service.ResetRefused:
        return page("password_reset", 400, token="", done=False, problem=problem)
    return page("password_reset", token="", done=True, problem=None)
