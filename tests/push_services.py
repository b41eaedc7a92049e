"""Push services on this machine, which answer as their documentation says: FCM with Google's token server,
and a Web Push service with browsers behind it that really decrypt what they get."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SILENCE = "silence"  # read the request, and never answer
HANG_UP = "hang up"  # read the request, and close
GARBAGE = "garbage"  # answer something that is no HTTP


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


class Peer:
    """An HTTP/1.1 server on a free port. What is in `next` is answered before what the server would say."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.next: deque[Answer | str] = deque()
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    def is_prepared(self, request: Request) -> bool:
        """Whether `next` is for this request."""
        return True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, path, _ = first.split(" ")
                request = Request(method, path, headers, body)
                self.requests.append(request)
                prepared = self.next.popleft() if self.next and self.is_prepared(request) else None
                answer = prepared if prepared is not None else self.answer(request)
                if answer == SILENCE:
                    await asyncio.Event().wait()
                if answer == HANG_UP:
                    return
                if answer == GARBAGE:
                    writer.write(b"\0\1 nonsense \r\n\r\n")
                    return
                assert isinstance(answer, Answer)
                data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                lines = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {len(data)}"]
                lines += [f"{name}: {value}" for name, value in answer.headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)


# -- Firebase Cloud Messaging


class Fcm(Peer):
    """Google's token server (`/token`) and FCM HTTP v1, for the project `school-1`."""

    project = "school-1"
    _key = rsa.generate_private_key(65537, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.registered: set[str] = set()
        self.messages: list[dict[str, Any]] = []
        self.expires_in = 3600
        self.live_tokens: set[str] = set()
        self.given = 0
        self.token_answers: deque[Answer] = deque()

    @property
    def account(self) -> dict[str, str]:
        """A service account's key, as the console gives it."""
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account", "project_id": self.project, "private_key_id": "k1",
            "private_key": pem.decode(), "client_email": f"push@{self.project}.iam.gserviceaccount.com",
            "client_id": "1", "token_uri": f"{self.url}/token",
        }  # fmt: skip

    def is_prepared(self, request: Request) -> bool:
        return request.path != "/token"

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            return self._token(request)
        if request.path != f"/v1/projects/{self.project}/messages:send" or request.method != "POST":
            return fcm_error(404, "NOT_FOUND", "no such method")
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.live_tokens:
            return fcm_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        message = request.json["message"]
        for index, (key, value) in enumerate(message.get("data", {}).items()):
            reserved = key in ("from", "message_type") or key.startswith(("google", "gcm"))
            if not isinstance(value, str) or reserved:
                where = f"message.data[{index}].value"
                return Answer(400, {"error": {
                    "code": 400, "message": f"Invalid value at '{where}' (TYPE_STRING)",
                    "status": "INVALID_ARGUMENT",
                    "details": [{
                        "@type": "type.googleapis.com/google.rpc.BadRequest",
                        "fieldViolations": [{"field": where, "description": "Invalid value"}],
                    }],
                }})  # fmt: skip
        if message["token"] not in self.registered:
            return fcm_error(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
        self.messages.append(message)
        return Answer(200, {"name": f"projects/{self.project}/messages/{len(self.messages)}"})

    def _token(self, request: Request) -> Answer:
        if self.token_answers:
            return self.token_answers.popleft()
        form = parse_qs(request.body.decode())
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        signed, _, signature = form["assertion"][0].rpartition(".")
        self._key.public_key().verify(
            _unbase64(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims = json.loads(_unbase64(signed.partition(".")[2]))
        assert claims["aud"] in (f"{self.url}/token", "https://oauth2.googleapis.com/token")
        assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        assert claims["iat"] - 60 < time.time() < claims["exp"]
        self.given += 1
        token = f"access-{self.given}"
        self.live_tokens.add(token)
        return Answer(
            200, {"access_token": token, "expires_in": self.expires_in, "token_type": "Bearer"},
            {"Content-Type": "application/json"},
        )  # fmt: skip


def fcm_error(
    status: int, name: str, text: str, code: str = "", headers: dict[str, str] | None = None,
    fields: tuple[str, ...] = (),
) -> Answer:  # fmt: skip
    details: list[dict[str, Any]] = []
    if code:
        details.append({"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code})
    if fields:
        details.append({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": name, "description": "invalid"} for name in fields],
        })  # fmt: skip
    error = {"code": status, "message": text, "status": name, "details": details}
    return Answer(status, {"error": error}, headers or {})


# -- Web Push


class Browser:
    """A browser with one subscription: it decrypts as RFC 8291 and RFC 8188 say."""

    def __init__(self, service: PushService, server_key: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        self.server_key = server_key
        self.path = f"/push/{_base64(os.urandom(16))}"
        self.endpoint = service.url + self.path
        self.received: list[dict[str, Any]] = []

    @property
    def subscription(self) -> dict[str, Any]:
        """As `JSON.stringify(subscription)` gives it."""
        return {
            "endpoint": self.endpoint, "expirationTime": None,
            "keys": {"p256dh": _base64(_point(self.key.public_key())), "auth": _base64(self.auth)},
        }  # fmt: skip

    def decrypt(self, body: bytes) -> bytes:
        salt, size, length = body[:16], int.from_bytes(body[16:20]), body[20]
        sender, sealed = body[21 : 21 + length], body[21 + length :]
        assert size >= 18
        assert length == 65
        assert len(sealed) <= size  # a push message is one record
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        info = b"WebPush: info\0" + _point(self.key.public_key()) + sender
        secret = HKDF(hashes.SHA256(), 32, self.auth, info).derive(self.key.exchange(ec.ECDH(), theirs))
        key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
        nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
        padded = AESGCM(key).decrypt(nonce, sealed, None).rstrip(b"\0")
        assert padded[-1] == 2  # the delimiter of the last record
        return padded[:-1]


class PushService(Peer):
    """A Web Push service (RFC 8030) that knows applications by VAPID (RFC 8292)."""

    def __init__(self) -> None:
        super().__init__()
        self.browsers: dict[str, Browser] = {}

    def subscribe(self, server_key: str) -> Browser:
        """As a page does with `pushManager.subscribe({applicationServerKey})`."""
        browser = Browser(self, server_key)
        self.browsers[browser.path] = browser
        return browser

    def answer(self, request: Request) -> Answer:
        browser = self.browsers.get(urlsplit(request.path).path)
        if browser is None:
            return Answer(410, b"push subscription has unsubscribed or expired")
        headers = request.headers
        if not headers.get("ttl", "").isdigit():
            return Answer(400, b"TTL is missing")
        if headers.get("urgency") not in ("very-low", "low", "normal", "high"):
            return Answer(400, b"Urgency is wrong")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers.get("topic", "x")):
            return Answer(400, b"Topic is wrong")
        if headers.get("content-encoding") != "aes128gcm":
            return Answer(400, b"Content-Encoding is wrong")
        if len(request.body) > 4096:
            return Answer(413, b"too large")
        refusal = self._refused(headers.get("authorization", ""), browser)
        if refusal:
            return Answer(403, refusal.encode())
        told = json.loads(browser.decrypt(request.body))
        browser.received.append(told | {"ttl": int(headers["ttl"]), "urgency": headers["urgency"]})
        return Answer(201, b"", {"Location": f"{self.url}/message/1"})

    def _refused(self, authorization: str, browser: Browser) -> str:
        match = re.fullmatch(r"vapid t=([\w.-]+), ?k=([\w-]+)", authorization)
        if match is None:
            return "no VAPID"
        token, key = match.groups()
        if key != browser.server_key:
            return "the key is not the one that was subscribed with"
        signed, _, signature = token.rpartition(".")
        raw = _unbase64(signature)
        der = utils.encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _unbase64(key))
        public.verify(der, signed.encode(), ec.ECDSA(hashes.SHA256()))
        header, claims = (json.loads(_unbase64(part)) for part in signed.split("."))
        if header["alg"] != "ES256" or claims["aud"] != self.url:
            return f"not for us: {claims}"
        if not time.time() < claims["exp"] <= time.time() + 24 * 3600:
            return "expired, or good for too long"
        return "" if claims["sub"].startswith(("mailto:", "https:")) else "nobody to turn to"


def subscription(**keys: Any) -> dict[str, Any]:
    """A subscription as a browser gives it, at a service that is not there."""
    point = _point(ec.generate_private_key(ec.SECP256R1()).public_key())
    good = {"p256dh": _base64(point), "auth": _base64(os.urandom(16))}
    return {"endpoint": "https://push.example/1", "expirationTime": None, "keys": good | keys}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
