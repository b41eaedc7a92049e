"""Work that concerns people: their mails."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Run, Secret
from errands.kits.mail import Mailer, Templates
from school import dispatch, mail
from school.app import app
from school.people import service


@app.task(name="send_welcome_email", queue="emails", retry=mail.RETRY)
async def send_welcome_email(
    user_id: int, email: str, name: str, *, run: Run, mailer: Mailer, templates: Templates
) -> str:
    """Greet a new user; returns the mail's Message-ID."""
    return await mail.send("welcome", email, run=run, mailer=mailer, templates=templates, name=name)


@app.task(name="request_password_reset", queue="emails", retry=mail.RETRY)
async def request_password_reset(email: str, *, run: Run, session: AsyncSession) -> None:
    """Make a reset link for whoever has this address, and mail it. For nobody, nothing."""
    user = await service.by_email(session, email)
    if user is None:
        return
    token = await service.new_reset(session, user.id)
    dispatch.password_reset(session, run, user.email, user.full_name, token)


@app.task(name="send_password_reset_email", queue="emails", retry=mail.RETRY)
async def send_password_reset_email(
    email: str, name: str, reset_token: Secret[str], *, run: Run, mailer: Mailer, templates: Templates
) -> str:
    """Mail a link that sets a new password; returns the Message-ID."""
    link = mail.page(f"/password-reset?token={reset_token}")
    minutes = int(service.RESET_LIFE.total_seconds() // 60)
    return await mail.send(
        "password_reset", email, run=run, mailer=mailer, templates=templates, name=name, link=link,
        minutes=minutes,
    )  # fmt: skip
