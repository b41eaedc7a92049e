"""The SMTP mailer against a real SMTP server."""

import asyncio
import datetime
import email
import email.policy
import socket
import ssl
from contextlib import asynccontextmanager

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from errands.core.errors import Discard
from errands.kits.mail.errors import PermanentMailError, TemporaryMailError, UnknownOutcomeError
from errands.kits.mail.message import Message
from errands.kits.mail.smtp import SmtpMailer


def message(to="ann@example.com", **values):
    return Message(**{"to": to, "subject": "Grüße", "text": ".one\r\n..two\r\nthree"} | values)


@pytest.fixture
def closed_port():
    """A port that is taken, and where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class Session(SMTP):
    """Notes who connects and which commands come."""

    def __init__(self, server, **options):
        super().__init__(server, **options)
        self.server = server

    def connection_made(self, transport):
        if not self.server.transports or self.transport is None:
            self.server.connections += 1
        self.server.transports.append(transport)
        super().connection_made(transport)

    async def smtp_NOOP(self, arg):
        self.server.noops += 1
        await super().smtp_NOOP(arg)


class Server:
    """A server whose answers a test chooses by command; it keeps what it accepts."""

    def __init__(self):
        self.answers = {}
        self.mails = []
        self.connections = 0
        self.noops = 0
        self.transports = []
        self.most_at_once = 0
        self.at_work = 0
        self.never = asyncio.Event()

    async def answer(self, command, session, default):
        answer = self.answers.get(command, default)
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else default
        if answer == "hang":
            await self.never.wait()
        if answer == "drop":
            self.transports[-1].abort()
            return "250 nobody reads this"
        return answer

    async def handle_MAIL(self, server, session, envelope, address, options):
        answer = await self.answer("MAIL", session, "250 sender ok")
        if answer.startswith("250"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        if answer.startswith("421"):
            asyncio.get_running_loop().call_soon(server.transport.close)
        return answer

    async def handle_RCPT(self, server, session, envelope, address, options):
        answer = await self.answer(f"RCPT {address}", session, "250 recipient ok")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server, session, envelope):
        self.at_work += 1
        self.most_at_once = max(self.most_at_once, self.at_work)
        await asyncio.sleep(0)
        answer = await self.answer("DATA", session, "250 queued as 17")
        self.at_work -= 1
        if answer.startswith("250 queued"):
            self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return answer

    @property
    def parsed(self):
        return [
            email.message_from_bytes(content, policy=email.policy.default) for _, _, content in self.mails
        ]


@asynccontextmanager
async def serving(**options):
    server = Server()
    listener = await asyncio.get_running_loop().create_server(
        lambda: Session(server, hostname="mx.example.com", enable_SMTPUTF8=True, **options), "127.0.0.1", 0
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for transport in server.transports:
            transport.abort()


@asynccontextmanager
async def mailing(port, **options):
    mailer = SmtpMailer(
        "127.0.0.1", port, **{"starttls": False, "sender": "Errands <errands@example.com>"} | options
    )
    try:
        yield mailer
    finally:
        await mailer.aclose()


async def test_a_mail_arrives_whole_with_its_envelope():
    async with serving() as server, mailing(server.port) as mailer:
        receipt = await mailer.send(
            message(["Ann Ü <ann@example.com>", "bob@bücher.example"], html="<b>Ü</b>")
        )
        ((sender, recipients, _),) = server.mails
        (mail,) = server.parsed
    assert sender == "errands@example.com"
    assert recipients == ["ann@example.com", "bob@xn--bcher-kva.example"]
    assert mail["Subject"] == "Grüße"
    assert mail.get_body(("plain",)).get_content().splitlines() == [".one", "..two", "three"]
    assert mail.get_body(("html",)).get_content().strip() == "<b>Ü</b>"
    assert receipt.message_id == mail["Message-ID"]
    assert receipt.answer == "250 queued as 17"


async def test_an_address_in_another_script_goes_by_smtputf8():
    async with serving() as server, mailing(server.port) as mailer:
        await mailer.send(message("用户@example.com"))
    assert server.mails[0][1] == ["用户@example.com"]


async def test_connections_are_reused_and_never_more_than_four():
    async with serving() as server, mailing(server.port) as mailer:
        for n in range(5):
            await mailer.send(message(f"a{n}@example.com"))
        assert server.connections == 1
        await asyncio.gather(*(mailer.send(message(f"b{n}@example.com")) for n in range(30)))
        assert len(server.mails) == 35
        assert server.connections <= 4
        assert 1 < server.most_at_once <= 4


async def test_an_idle_connection_that_the_server_dropped_is_replaced():
    async with serving() as server, mailing(server.port) as mailer:
        await mailer.send(message())
        server.transports[0].abort()
        await mailer.send(message())
        assert len(server.mails) == 2
        assert server.connections == 2


async def test_a_server_that_says_goodbye_at_the_next_mail_gets_a_new_connection():
    async with serving() as server, mailing(server.port) as mailer:
        await mailer.send(message())
        server.answers["MAIL"] = ["421 too many on this connection"]
        await mailer.send(message())
        assert len(server.mails) == 2
        assert server.connections == 2


async def test_a_connection_that_was_idle_for_long_is_tried_first():
    async with serving() as server, mailing(server.port, check_after=0) as mailer:
        await mailer.send(message())
        await mailer.send(message())
        assert (server.noops, server.connections, len(server.mails)) == (1, 1, 2)


async def test_a_mailer_can_be_used_again_after_it_was_closed():
    async with serving() as server, mailing(server.port) as mailer:
        await mailer.send(message())
        await mailer.aclose()
        await mailer.aclose()
        await mailer.send(message())
        assert len(server.mails) == 2


def test_each_event_loop_has_connections_of_its_own():
    state = Server()

    async def send_in_a_loop_of_its_own(mailer, listening):
        server = await asyncio.get_running_loop().create_server(lambda: Session(state), sock=listening)
        await mailer.send(message())
        server.close()
        for transport in state.transports:
            transport.abort()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        mailer = SmtpMailer("127.0.0.1", port, starttls=False, sender="e@example.com")
        asyncio.run(send_in_a_loop_of_its_own(mailer, listening.dup()))
        asyncio.run(send_in_a_loop_of_its_own(mailer, listening.dup()))
    assert len(state.mails) == 2


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({"MAIL": "451 busy"}, TemporaryMailError),
        ({"MAIL": "421 closing"}, TemporaryMailError),
        ({"MAIL": "550 not from you"}, PermanentMailError),
        ({"RCPT ann@example.com": "450 greylisted"}, TemporaryMailError),
        ({"RCPT ann@example.com": "550 no such user"}, PermanentMailError),
        ({"DATA": "452 disk full"}, TemporaryMailError),
        ({"DATA": "554 looks like spam"}, PermanentMailError),
    ],
)
async def test_a_refusal_is_temporary_or_permanent_by_its_code(answers, error):
    async with serving() as server, mailing(server.port) as mailer:
        server.answers = dict(answers)
        with pytest.raises(error) as caught:
            await mailer.send(message())
        assert next(iter(answers.values())) in str(caught.value)
        assert isinstance(caught.value, Discard) is (error is PermanentMailError)
        assert server.mails == []
        server.answers = {}
        await mailer.send(message())
        assert len(server.mails) == 1


async def test_a_refused_mail_leaves_the_connection_usable():
    async with serving() as server, mailing(server.port) as mailer:
        server.answers["RCPT ann@example.com"] = ["550 no"]
        with pytest.raises(PermanentMailError):
            await mailer.send(message())
        await mailer.send(message())
        assert (server.connections, server.mails[0][1]) == (1, ["ann@example.com"])


async def test_all_recipients_or_none():
    async with serving() as server, mailing(server.port) as mailer:
        server.answers = {"RCPT b@example.com": "450 later", "RCPT c@example.com": "451 later"}
        with pytest.raises(TemporaryMailError, match=r"b@example\.com: 450 later; c@example\.com: 451"):
            await mailer.send(message(["a@example.com", "b@example.com", "c@example.com"]))
        server.answers["RCPT b@example.com"] = "550 never"
        with pytest.raises(PermanentMailError):
            await mailer.send(message(["a@example.com", "b@example.com", "c@example.com"]))
        assert server.mails == []


@pytest.mark.parametrize("what", ["hang", "drop"])
async def test_no_answer_to_the_content_is_told_and_not_repeated(what):
    async with serving() as server, mailing(server.port, data_timeout=0.1) as mailer:
        server.answers["DATA"] = [what]
        with pytest.raises(UnknownOutcomeError, match="may have been delivered or not") as caught:
            await mailer.send(message(message_id="<one@example.com>"))
        assert isinstance(caught.value, Discard)
        assert "<one@example.com>" in str(caught.value)
        await mailer.send(message())
        assert len(server.mails) == 1


@pytest.mark.parametrize("what", ["hang", "drop"])
async def test_no_answer_before_the_content_is_temporary(what):
    async with serving() as server, mailing(server.port, timeout=0.2) as mailer:
        server.answers["RCPT ann@example.com"] = [what]
        with pytest.raises(TemporaryMailError):
            await mailer.send(message())
        await mailer.send(message())
        assert len(server.mails) == 1


async def test_a_cancelled_mail_does_not_spoil_the_next_one():
    async with serving() as server, mailing(server.port) as mailer:
        server.answers["DATA"] = ["hang"]
        sending = asyncio.create_task(mailer.send(message("first@example.com")))
        while not server.at_work:
            await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await mailer.send(message("second@example.com"))
        assert [recipients for _, recipients, _ in server.mails] == [["second@example.com"]]
        assert server.connections == 2


async def test_nobody_listening_is_temporary(closed_port):
    async with mailing(closed_port) as mailer:
        with pytest.raises(TemporaryMailError, match=f"127.0.0.1:{closed_port}"):
            await mailer.send(message())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def sign_in(server, session, envelope, mechanism, auth_data):
    ok = isinstance(auth_data, LoginPassword) and auth_data.password == b"right"
    return AuthResult(success=ok, handled=ok)


async def test_starttls_and_sign_in(certificate):
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    ours = ssl.create_default_context(cafile=certificate)
    options = {
        "tls_context": theirs,
        "require_starttls": True,
        "authenticator": sign_in,
        "auth_required": True,
    }
    async with serving(**options) as server:
        good = SmtpMailer(
            "localhost", server.port, username="u", password="right", sender="e@example.com", tls_context=ours
        )
        await good.send(message())
        await good.send(message())
        await good.aclose()
        assert len(server.mails) == 2

        wrong = SmtpMailer(
            "localhost", server.port, username="u", password="wrong", sender="e@example.com", tls_context=ours
        )
        with pytest.raises(PermanentMailError, match="SMTP_PASSWORD") as caught:
            await wrong.send(message())
        assert "wrong" not in str(caught.value)

        untrusting = SmtpMailer("localhost", server.port, sender="e@example.com")
        with pytest.raises(PermanentMailError, match="not trusted"):
            await untrusting.send(message())
        assert len(server.mails) == 2


async def test_a_server_without_starttls_gets_no_mail():
    async with serving() as server, mailing(server.port, starttls=True) as mailer:
        with pytest.raises(PermanentMailError, match="SMTP_USE_TLS"):
            await mailer.send(message())
        assert server.mails == []
