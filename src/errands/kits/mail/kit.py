"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from errands import ConfigurationError, Deliveries
from errands.kits.mail.attachments import Attachments, Reader
from errands.kits.mail.bulk import BulkMail
from errands.kits.mail.errors import InvalidMessage
from errands.kits.mail.firebase import FirebaseMailer
from errands.kits.mail.message import parse_address
from errands.kits.mail.provider import Mailer
from errands.kits.mail.smtp import SmtpMailer
from errands.kits.mail.templates import Templates
from errands.kits.mail.unsubscribe import Unsubscribe

if TYPE_CHECKING:
    from errands import Errands, Settings


class MailKit:
    """See `kit`."""

    def __init__(
        self, mailer: Callable[[], Mailer] | None, templates: Templates | None, unsubscribe: bool | str,
        read: Reader | None,
    ) -> None:  # fmt: skip
        self._mailer = mailer
        self._templates = templates
        self._unsubscribe = unsubscribe
        self._read = read

    def install(self, app: Errands) -> None:
        """Provide `Mailer` and `BulkMail`; `Templates`, `Unsubscribe` and `Attachments` if there are any.

        Raises:
            ConfigurationError: MAIL_FROM is no address; there is no key to seal links with.
        """
        settings = app.settings
        if self._mailer is None:
            check(settings)
        app.provide(Mailer, self._mailer or (lambda: mailer_from(settings)), scope="process")
        templates = self._templates
        if templates is not None:
            app.provide(Templates, lambda: templates, scope="process")
        attachments = Attachments(self._read) if self._read is not None else None
        if attachments is not None:
            app.provide(Attachments, lambda: attachments, scope="process")
        unsubscribe = self._links(app)
        if unsubscribe is not None:
            app.provide(Unsubscribe, lambda: unsubscribe, scope="process")

        def bulk() -> BulkMail:
            instance = app.resources.instance
            return BulkMail(
                instance(Mailer),  # type: ignore[type-abstract]
                instance(Deliveries), sender=settings.mail_from, templates=templates,
                unsubscribe=unsubscribe, attachments=attachments,
            )  # fmt: skip

        app.provide(BulkMail, bulk, scope="process")

    def _links(self, app: Errands) -> Unsubscribe | None:
        if not self._unsubscribe:
            return None
        url = self._unsubscribe if isinstance(self._unsubscribe, str) else app.settings.public_url
        return Unsubscribe(app.keyring, url)


def kit(
    mailer: Callable[[], Mailer] | None = None, *, templates: Templates | str | Path | None = None,
    unsubscribe: bool | str = False, read: Reader | None = None,
) -> MailKit:  # fmt: skip
    """Mail for an app: `app.use(mail.kit(templates=Path(__file__).parent / "templates"))`.

    Args:
        mailer: makes the mailer, once a process; by default by the settings: Firebase where
            FIREBASE_ENABLED, else SMTP. Tests give `FakeMailer`, or `lambda: their_own`.
        templates: the mails, or the folder they are in.
        unsubscribe: bulk mails have links by which people stop them: to ERRANDS_PUBLIC_URL, or to the address
            given here, where `unsubscribe_router` is mounted.
        read: gives the bytes of a stored file by its key, for `mail.Stored` attachments.

    Raises:
        TemplateError: a template is broken.
    """
    if isinstance(templates, str | Path):
        templates = Templates(templates)
    return MailKit(mailer, templates, unsubscribe, read)


def mailer_from(settings: Settings) -> Mailer:
    """The mailer that the settings ask for."""
    if settings.firebase_enabled and settings.firebase_functions_url:
        return FirebaseMailer(settings.firebase_functions_url, sender=settings.mail_from)
    return SmtpMailer(
        settings.smtp_host,
        settings.smtp_port,
        username=settings.smtp_username or None,
        password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
        # Implicit TLS needs no upgrade; SMTP_USE_TLS is on by default.
        starttls=settings.smtp_use_tls and not settings.smtp_use_ssl,
        tls=settings.smtp_use_ssl,
        sender=settings.mail_from,
    )


def check(settings: Settings) -> None:
    """Refuse at start what would fail with every mail."""
    try:
        parse_address(settings.mail_from)
    except InvalidMessage as exc:
        raise ConfigurationError(f"MAIL_FROM: {exc}") from exc
