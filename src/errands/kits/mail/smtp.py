"""Mail by SMTP (RFC 5321), over a few connections that are kept open."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.message import EmailMessage

import aiosmtplib
from aiosmtplib.protocol import normalize_message_line_endings

from errands.kits.mail.errors import (
    PermanentMailError,
    ServerRefused,
    ServerUnavailable,
    TemporaryMailError,
    UnknownOutcomeError,
)
from errands.kits.mail.message import POLICY, Message
from errands.kits.mail.pool import Pool
from errands.kits.mail.provider import Receipt

_UTF8 = POLICY.clone(utf8=True)


class SmtpMailer:
    """Sends through one SMTP server.

    A message to several recipients goes to all of them or to none: if the server refuses one, nothing is
    sent, so that sending again can't reach anybody twice.

    Args:
        host: the server's name.
        port: 587 for submission with STARTTLS, 465 for TLS from the start, 25 or another for neither.
        username, password: sign-in; None sends without.
        starttls: upgrade to TLS after connecting; refused if the server can't.
        tls: TLS from the first byte. Not together with `starttls`.
        sender: whom mail is from that names no sender itself (MAIL_FROM).
        connections: how many at most are open at once in one event loop.
        timeout: seconds for connecting and for each answer.
        data_timeout: seconds for the answer to the content (RFC 5321 4.5.3.2.6 wants ten minutes).
        check_after: a connection idle for longer than this many seconds is tried with NOOP before use.
        tls_context: certificates of your own to trust; None trusts the system's.
    """

    def __init__(
        self,
        host: str,
        port: int = 587,
        *,
        username: str | None = None,
        password: str | None = None,
        starttls: bool = True,
        tls: bool = False,
        sender: str | None = None,
        connections: int = 4,
        timeout: float = 30.0,
        data_timeout: float = 600.0,
        check_after: float = 10.0,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self._where = f"{host}:{port}"
        self._sender = sender
        self._data_timeout = data_timeout

        def connection() -> aiosmtplib.SMTP:
            return aiosmtplib.SMTP(
                hostname=host,
                port=port,
                username=username,
                password=password,
                start_tls=starttls and not tls,
                use_tls=tls,
                tls_context=tls_context,
                timeout=timeout,
            )

        self._pool = Pool(connection, size=connections, check_after=check_after)

    async def send(self, message: Message) -> Receipt:
        mail = message.build(self._sender)
        with _translated(self._where):
            async with self._envelope(mail) as (smtp, utf8):
                answer = await self._content(smtp, mail, utf8)
        return Receipt(str(mail["Message-ID"]), answer)

    async def aclose(self) -> None:
        await self._pool.aclose()

    @asynccontextmanager
    async def _envelope(self, mail: EmailMessage) -> AsyncIterator[tuple[aiosmtplib.SMTP, bool]]:
        """A connection on which sender and recipients have been accepted, and whether they need SMTPUTF8."""
        sender, recipients = _sender(mail), _recipients(mail)
        utf8 = not all(address.isascii() for address in (sender, *recipients))
        # RFC 6531. A server without it refuses the parameter, for good.
        options = ["SMTPUTF8"] if utf8 else []
        encoding = "utf-8" if utf8 else "ascii"
        async with self._pool.connection() as lease:
            try:
                await lease.smtp.mail(sender, options=options, encoding=encoding)
            except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPSenderRefused) as exc:
                # The server had closed an idle connection, or says now that it will (421): nothing was sent.
                if not lease.reused or getattr(exc, "code", 421) != 421:
                    raise
                await lease.renew()
                await lease.smtp.mail(sender, options=options, encoding=encoding)
            smtp = lease.smtp
            refused = []
            for address in recipients:
                try:
                    await smtp.rcpt(address, encoding=encoding)
                except aiosmtplib.SMTPRecipientRefused as exc:
                    refused.append(exc)
            if refused:
                raise aiosmtplib.SMTPRecipientsRefused(refused)
            yield smtp, utf8

    async def _content(self, smtp: aiosmtplib.SMTP, mail: EmailMessage, utf8: bool) -> str:
        """Send the content. Split from aiosmtplib's own `data()`, which does not tell a failure before the
        content was sent from one after it."""
        data = normalize_message_line_endings(mail.as_bytes(policy=_UTF8 if utf8 else POLICY))
        if data.startswith(b"."):
            data = b"." + data
        data = data.replace(b"\r\n.", b"\r\n..") + b".\r\n"
        start = await smtp.execute_command(b"DATA")
        if start.code != 354:
            raise aiosmtplib.SMTPDataError(start.code, start.message)
        protocol = smtp.protocol
        if protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("the server closed the connection before the content")
        try:
            protocol.write(data)
            answer = await protocol.read_response(timeout=self._data_timeout)
        except (OSError, aiosmtplib.SMTPException) as exc:
            smtp.close()
            raise UnknownOutcomeError(
                f"{self._where} was sent the mail {mail['Message-ID']} and did not answer ({exc}): it may "
                "have been delivered or not. It is not sent again by itself; look for it at the server first."
            ) from exc
        if answer.code != 250:
            raise aiosmtplib.SMTPDataError(answer.code, answer.message)
        return f"{answer.code} {answer.message}"


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """The one place where aiosmtplib's errors become ours."""
    try:
        yield
    except aiosmtplib.SMTPRecipientsRefused as exc:
        told = "; ".join(f"{r.recipient}: {r.code} {r.message}" for r in exc.recipients)
        final = any(r.code >= 500 for r in exc.recipients)
        raise (PermanentMailError if final else TemporaryMailError)(f"{where} refused {told}") from exc
    except aiosmtplib.SMTPAuthenticationError as exc:
        raise _of_server(exc.code)(
            f"{where} refused the sign-in: {exc.code} {exc.message} (SMTP_USERNAME, SMTP_PASSWORD)"
        ) from exc
    except (aiosmtplib.SMTPConnectResponseError, aiosmtplib.SMTPHeloError) as exc:
        raise _of_server(exc.code)(f"{where} answered {exc.code} {exc.message}") from exc
    except aiosmtplib.SMTPSenderRefused as exc:
        text = f"{where} refused the sender {exc.sender}: {exc.code} {exc.message} (MAIL_FROM)"
        raise (ServerRefused if exc.code >= 500 else TemporaryMailError)(text) from exc
    except aiosmtplib.SMTPResponseException as exc:
        kind = PermanentMailError if exc.code >= 500 else TemporaryMailError
        raise kind(f"{where} answered {exc.code} {exc.message}") from exc
    except (OSError, ssl.SSLError) as exc:
        cause = exc.__cause__ if isinstance(exc.__cause__, ssl.SSLError) else exc
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ServerRefused(
                f"{where} showed a certificate that is not trusted: {cause.verify_message}"
            ) from exc
        # Lost in the middle of a mail it may be that mail's fault, else it is nobody's.
        gone = ServerUnavailable if isinstance(exc, aiosmtplib.SMTPConnectError) else TemporaryMailError
        raise gone(f"no mail connection to {where}: {exc}") from exc
    except aiosmtplib.SMTPException as exc:
        # What is left is a server that lacks something asked of it: STARTTLS, AUTH.
        raise ServerRefused(f"{where}: {exc} (SMTP_USE_TLS, SMTP_USE_SSL, SMTP_USERNAME)") from exc


def _of_server(code: int) -> type[ServerRefused | ServerUnavailable]:
    return ServerRefused if code >= 500 else ServerUnavailable


def _sender(mail: EmailMessage) -> str:
    return str(mail["From"].addresses[0].addr_spec)


def _recipients(mail: EmailMessage) -> list[str]:
    return [str(address.addr_spec) for address in mail["To"].addresses]
