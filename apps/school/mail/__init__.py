"""The school's mails: `templates/` has their words, `send` sends one."""

from __future__ import annotations

from urllib.parse import urlsplit

from errands import Retry, Run
from errands.kits.mail import Attachment, Mailer, Templates, send_once, stable_message_id
from school.app import SCHOOL_NAME, app

# Passing errors of SMTP, connections and time-outs; what will never be accepted is a `Discard` of the kit.
RETRY = Retry(3, first=60, most=600)


async def send(
    mail: str, email: str, *, run: Run, mailer: Mailer, templates: Templates,
    attachments: tuple[Attachment, ...] = (), **values: object,
) -> str:  # fmt: skip
    """Fill in the template `mail` and send it; returns the Message-ID, the same at each attempt."""
    domain = urlsplit(app.settings.public_url).hostname or "localhost"
    rendered = templates.render(mail, school=SCHOOL_NAME, school_url=app.settings.public_url, **values)
    message = rendered.to(
        email, attachments=attachments, message_id=stable_message_id(f"{mail}:{run.id}", domain)
    )
    return (await send_once(run, mailer, message)).message_id


def page(path: str) -> str:
    """The public address of a page of the school."""
    return app.settings.public_url.rstrip("/") + path
