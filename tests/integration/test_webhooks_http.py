"""Webhooks over real sockets, and their record in a real database."""

import asyncio
import datetime
import json
import socket
import ssl
import sys
from contextlib import asynccontextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from errands import Keyring, Run
from errands.core import clock
from errands.fetching import FetchFailed
from errands.kits.webhooks import (
    AddressRefused,
    Guard,
    HttpSender,
    Reply,
    WebhookFailed,
    WebhookGone,
    WebhookRefused,
    WebhookStore,
    verify,
)
from errands.kits.webhooks.delivery import Options, Sending, Webhook, deliver
from errands.kits.webhooks.outcome import SHORT


@pytest.fixture
def closed_port():
    """A port that is taken, and where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


class Receiver:
    """An HTTP server that answers what a test says and keeps what it got."""

    def __init__(self):
        self.requests = []
        self.answers = []
        self.never = asyncio.Event()
        self.closed_early = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append((line, headers, body))
            answer = self.answers.pop(0) if self.answers else 200
            if answer == "hang":
                await self.never.wait()
            elif answer == "drop":
                writer.transport.abort()
            elif answer == "rubbish":
                writer.write(b"SSH-2.0-OpenSSH\r\n")
            elif answer == "endless":
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                while not writer.transport.is_closing():
                    writer.write(b"x" * 65536)
                    await writer.drain()
            elif answer == "trickle":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
                await writer.drain()
                await self.never.wait()
            else:
                status, more = answer if isinstance(answer, tuple) else (answer, "")
                head = f"HTTP/1.1 {status} X\r\n{more}Content-Length: 5\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + b"hello")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.closed_early.set()
        finally:
            writer.close()


@asynccontextmanager
async def receiving(tls=None, host="127.0.0.1"):
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, host, 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    receiver.url = f"http://127.0.0.1:{receiver.port}/hook"
    receiver.sender = HttpSender(Guard(f"127.0.0.1:{receiver.port}"))
    try:
        yield receiver
    finally:
        receiver.never.set()
        server.close()


async def test_exactly_these_bytes_and_headers_arrive():
    async with receiving() as receiver:
        body = '{"a":"ü ٣"}'.encode()
        reply = await receiver.sender.send(receiver.url + "?x=1", body, {"X-Webhook-Event": "e"})
    ((line, headers, arrived),) = receiver.requests
    assert line == "POST /hook?x=1 HTTP/1.1"
    assert arrived == body
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert headers["x-webhook-event"] == "e"
    assert "cookie" not in headers
    assert reply == Reply(200, None, "hello")


async def test_an_inner_address_that_is_not_exempt_gets_no_connection():
    async with receiving() as receiver:
        for url in (f"http://127.0.0.1:{receiver.port}/", f"https://localhost:{receiver.port}/"):
            with pytest.raises(AddressRefused):
                await HttpSender(Guard()).send(url, b"{}", {})
        assert receiver.requests == []
        for url in ("https://", "nonsense", "https://example.com:x/"):
            with pytest.raises(AddressRefused):
                await HttpSender(Guard()).send(url, b"{}", {})


async def test_a_name_that_cannot_be_found_now_is_a_failure_that_may_pass():
    async def nowhere(host):
        raise FetchFailed(f"{host} cannot be found")

    with pytest.raises(WebhookFailed, match=r"nowhere\.example cannot be found"):
        await HttpSender(Guard(resolver=nowhere)).send("https://nowhere.example/", b"{}", {})


async def test_a_redirect_is_an_answer_and_not_a_way():
    async with receiving() as inner, receiving() as receiver:
        for status in (301, 302, 307, 308):
            receiver.answers = [(status, f"Location: http://127.0.0.1:{inner.port}/admin\r\n")]
            assert (await receiver.sender.send(receiver.url, b"{}", {})).status == status
        assert inner.requests == []
        assert len(receiver.requests) == 4


async def test_a_proxy_from_the_environment_is_not_used(monkeypatch, closed_port):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    async with receiving() as receiver:
        assert (await receiver.sender.send(receiver.url, b"{}", {})).status == 200


@pytest.mark.parametrize("what", ["hang", "drop", "rubbish"])
async def test_no_answer_is_a_failure_that_may_pass(what):
    async with receiving() as receiver:
        receiver.answers = [what]
        sender = HttpSender(Guard(f"127.0.0.1:{receiver.port}"), timeout=0.3)
        with pytest.raises(WebhookFailed, match="no answer") as caught:
            await sender.send(receiver.url, b"{}", {})
        assert caught.value.status is None


async def test_nobody_listening_is_a_failure_that_may_pass(closed_port):
    sender = HttpSender(Guard(f"127.0.0.1:{closed_port}"))
    with pytest.raises(WebhookFailed, match="no answer"):
        await sender.send(f"http://127.0.0.1:{closed_port}/", b"{}", {})


async def test_an_endless_answer_is_read_for_a_kilobyte():
    async with receiving() as receiver:
        receiver.answers = ["endless"]
        reply = await receiver.sender.send(receiver.url, b"{}", {})
        assert (reply.status, reply.excerpt) == (200, "x" * 1024)
        await receiver.closed_early.wait()


async def test_a_status_counts_though_the_body_never_ends():
    async with receiving() as receiver:
        receiver.answers = ["trickle"]
        sender = HttpSender(Guard(f"127.0.0.1:{receiver.port}"), timeout=0.3)
        assert (await sender.send(receiver.url, b"{}", {})).status == 200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver.example")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("receiver.example")]), critical=False)
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


async def test_the_checked_address_is_called_under_its_own_name(certificate, monkeypatch):
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate)
    asked_for = []
    theirs.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    ours = ssl.create_default_context(cafile=certificate)
    looked_up = []

    def getaddrinfo(host, port, *_, **__):
        # A name that stands for another address the second time it is asked for.
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "192.0.2.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with receiving(theirs) as receiver:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        guard = Guard(f"receiver.example:{receiver.port},other.example:{receiver.port}")
        sender = HttpSender(guard, tls=ours)
        reply = await sender.send(f"https://receiver.example:{receiver.port}/hook", b"{}", {})
        assert reply.status == 200
        assert looked_up == ["receiver.example"]
        assert asked_for == ["receiver.example"]
        assert receiver.requests[0][1]["host"] == f"receiver.example:{receiver.port}"

        looked_up.clear()
        with pytest.raises(WebhookFailed, match=r"CERTIFICATE_VERIFY_FAILED|other\.example"):
            await sender.send(f"https://other.example:{receiver.port}/hook", b"{}", {})
        assert len(receiver.requests) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs more than one loopback address")
async def test_the_next_address_is_tried_when_one_does_not_listen(monkeypatch):
    async with receiving(host="127.0.0.2") as receiver:

        def getaddrinfo(_host, port, *_, **__):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("127.0.0.3", "127.0.0.2")
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        sender = HttpSender(Guard(f"receiver.example:{receiver.port}"))
        assert (await sender.send(f"http://receiver.example:{receiver.port}/", b"{}", {})).status == 200


@pytest.fixture
async def database(database):
    yield database
    await database.adispose()


async def an_attempt(receiver, store, attempt=1, **options):
    payload, noon = {"user_id": 1, "name": "Zoë"}, "2026-01-01T12:00:00+00:00"
    return await deliver(
        Webhook.of("msg_0190-run", "user.registered", payload, receiver.url, noon),
        run=Run("0190-run", "dispatch_webhook", attempt=attempt),
        sending=Sending(store, receiver.sender, Options(SHORT, **options)),
        to=await store.addressee(receiver.url),
    )


async def test_a_delivery_is_signed_verified_and_recorded(database):
    async with receiving() as receiver:
        store = WebhookStore(database, Keyring.parse(Keyring.new_key()), Guard(f"127.0.0.1:{receiver.port}"))
        endpoint, secret = await store.add(receiver.url, ["user.*"], created_by="7")
        receiver.answers = [503, 200]
        before = clock.now()
        with pytest.raises(WebhookFailed):
            await an_attempt(receiver, store)
        result = await an_attempt(receiver, store, attempt=2)
        second = await store.rotate_secret(endpoint.id)
        await an_attempt(receiver, store, attempt=3)

    assert result["delivered"]
    bodies = {body for _, _, body in receiver.requests}
    assert len(bodies) == 1
    assert json.loads(bodies.pop()) == {
        "type": "user.registered",
        "timestamp": "2026-01-01T12:00:00+00:00",
        "data": {"user_id": 1, "name": "Zoë"},
    }
    for _, headers, body in receiver.requests:
        assert verify(headers, body, secret) == "msg_0190-run"
    verify(receiver.requests[2][1], receiver.requests[2][2], second)

    third, second_try, first = await store.deliveries(endpoint.id)
    assert (first.attempt, first.status_code, first.delivered_at) == (1, 503, None)
    assert "503" in first.error
    assert 29 <= (first.next_try_at - before).total_seconds() < 60
    assert (second_try.attempt, second_try.status_code, second_try.error) == (2, 200, None)
    assert second_try.delivered_at >= before
    assert second_try.next_try_at is None
    assert third.run_id == "0190-run"


async def test_gone_disables_the_endpoint(database):
    async with receiving() as receiver:
        store = WebhookStore(database, Keyring.parse(Keyring.new_key()), Guard(f"127.0.0.1:{receiver.port}"))
        endpoint, _ = await store.add(receiver.url)
        receiver.answers = [410]
        with pytest.raises(WebhookGone):
            await an_attempt(receiver, store)
        assert not (await store.get(endpoint.id)).active
        assert (await store.deliveries(endpoint.id))[0].status_code == 410
        with pytest.raises(WebhookRefused, match="disabled: the receiver answered 410"):
            await an_attempt(receiver, store)
        assert len(receiver.requests) == 1


async def test_an_address_that_is_not_registered_needs_the_configured_secret(database):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    async with receiving() as receiver:
        store = WebhookStore(database, Keyring([]), Guard(f"127.0.0.1:{receiver.port}"))
        with pytest.raises(WebhookRefused, match="WEBHOOK_SECRET"):
            await an_attempt(receiver, store)
        assert receiver.requests == []
        await an_attempt(receiver, store, secret=secret)
        verify(receiver.requests[0][1], receiver.requests[0][2], secret)
