"""Registration, sign-in, forgotten passwords, roles."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from errands.core import clock
from school import dispatch
from school.access import Admin, Reading, SignedIn, Token, Writing, cache, client_address, too_many
from school.fields import Email, FullName, Id, Input, Password, email_key
from school.people import passwords, service
from school.people.tables import Role

router = APIRouter(tags=["people"])

_LOGIN_WINDOW, _LOGIN_FAILURES = 300, 10
_RESET_WINDOW, _RESETS = 3600, 5


class Registration(Input):
    email: Email
    password: Password
    full_name: FullName


class SignIn(Input):
    email: Annotated[str, Field(min_length=1, max_length=254)]
    password: Annotated[str, Field(min_length=1, max_length=200)]


class ResetRequest(Input):
    email: Email


class ResetConfirmation(Input):
    token: Annotated[str, Field(min_length=1, max_length=200)]
    password: Password


class Activity(Input):
    active: bool


class RoleChange(Input):
    role: Role


@router.post("/register", status_code=201)
async def register(body: Registration, session: Writing) -> dict[str, Any]:
    """Make a student. The welcome mail follows."""
    password_hash = await passwords.hash_password(body.password)
    try:
        user = await service.register(session, body.email, password_hash, body.full_name)
    except service.EmailTaken:
        raise HTTPException(409, "This email address is registered already.") from None
    task_id = dispatch.user_registered(session, user.id, user.email, user.full_name, user.role)
    return {"status": "User created, email queued", "user_id": user.id, "task_id": task_id}


@router.post("/login")
async def login(body: SignIn, request: Request, reading: Reading, session: Writing) -> dict[str, str]:
    """Sign in. Ten wrong passwords in five minutes, from one place for one address, end that for a while."""
    who = f"{client_address(request)}:{passwords.token_hash(email_key(body.email))[:16]}"
    tries = f"login:{who}:{int(clock.timestamp() // _LOGIN_WINDOW)}"
    if int(await cache().get(tries) or 0) >= _LOGIN_FAILURES:
        raise too_many(_LOGIN_WINDOW)
    user = await service.by_email(reading, body.email)
    right = await passwords.matches(body.password, user.password_hash if user else None)
    if user is None or not right or not user.is_active:
        failures = await cache().count("login", who, _LOGIN_WINDOW)
        await cache().set(tries, str(failures), _LOGIN_WINDOW)
        raise HTTPException(401, "Wrong email or password.", {"WWW-Authenticate": "Bearer"})
    return {"access_token": await service.sign_in(session, user.id), "token_type": "bearer"}


@router.post("/logout", status_code=204)
async def logout(token: Token, _: SignedIn, session: Writing) -> Response:
    """End this session."""
    await service.sign_out(session, token)
    return Response(status_code=204)


@router.get("/me")
async def me(user: SignedIn) -> dict[str, Any]:
    """Who is signed in."""
    return {"user_id": user.id, "email": user.email, "full_name": user.full_name, "role": user.role}


# Without a progress_url: it would tell whose box is flooded, since nothing is at work then.
@router.post("/password-reset", status_code=202, response_class=JSONResponse)
async def password_reset(body: ResetRequest, session: Writing) -> dict[str, str]:
    """Ask for a link to set a new password. Whether anybody has the address makes no difference here."""
    who = passwords.token_hash(email_key(body.email))
    if await cache().count("reset", who, _RESET_WINDOW) > _RESETS:
        task_id = dispatch.new_id()  # a box that is flooded gets no more, and nobody is told
    else:
        task_id = dispatch.password_reset_requested(session, body.email)
    return {"status": "If the address is registered, a mail is on its way.", "task_id": task_id}


@router.post("/password-reset/confirm", status_code=204)
async def password_reset_confirm(body: ResetConfirmation, reading: Reading, session: Writing) -> Response:
    """Set a new password with the token of the mail, once. Every session of the user ends."""
    refusal = HTTPException(400, "This link does not hold any more; ask for a new one.")
    if not await service.reset_holds(reading, body.token):
        raise refusal
    password_hash = await passwords.hash_password(body.password)
    try:
        await service.reset_password(session, body.token, password_hash)
    except service.ResetRefused:
        raise refusal from None
    return Response(status_code=204)


@router.put("/users/{user_id}/active", status_code=204)
async def set_active(user_id: Id, body: Activity, _: Admin, session: Writing) -> Response:
    """Let somebody in, or no more."""
    if not await service.set_active(session, user_id, active=body.active):
        raise HTTPException(404, "There is no such user.")
    return Response(status_code=204)


@router.put("/users/{user_id}/role", status_code=204)
async def set_role(user_id: Id, body: RoleChange, _: Admin, session: Writing) -> Response:
    """Make somebody a student, an instructor or an admin."""
    if not await service.set_role(session, user_id, body.role):
        raise HTTPException(404, "There is no such user.")
    return Response(status_code=204)
