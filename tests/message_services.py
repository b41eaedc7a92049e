"""Local HTTP servers that answer as the providers of messages document it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

Answer = tuple[int, Any, dict[str, str]]  # status, body, headers
SILENT = "silent"  # no answer
GATEWAY: Answer = (502, "<html>Bad Gateway</html>", {})
DROP = "drop"  # the connection, after the request was read


@dataclass
class Arrived:
    """A request: its path, its headers in lower case, its body as it was understood."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


@dataclass
class Service:
    """One provider. `answers` are given first, one a request; then it takes what comes."""

    url: str = ""
    arrived: list[Arrived] = field(default_factory=list)
    answers: list[Answer | str] = field(default_factory=list)
    by_number: dict[str, Answer | str] = field(default_factory=dict)

    def number_of(self, request: Arrived) -> str:
        raise NotImplementedError

    def read(self, body: bytes) -> dict[str, Any]:
        raise NotImplementedError

    def taken(self, request: Arrived, number: int) -> Answer:
        raise NotImplementedError


class WhatsApp(Service):
    """https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages"""

    def number_of(self, request: Arrived) -> str:
        return str(request.body["to"])

    def read(self, body: bytes) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(body)
        return found

    def taken(self, request: Arrived, number: int) -> Answer:
        assert request.path == "/v23.0/10654/messages"
        assert request.headers["content-type"] == "application/json"
        if request.headers["authorization"] != "Bearer good-token":
            return meta_error(401, 190, "Invalid OAuth access token - Cannot parse access token")
        to = request.body["to"]
        body = {
            "messaging_product": "whatsapp",
            "contacts": [{"input": to, "wa_id": to.lstrip("+")}],
            "messages": [{"id": f"wamid.{number}", "message_status": "accepted"}],
        }
        return 200, body, {}


def meta_error(status: int, code: int, message: str, details: str = "", **headers: str) -> Answer:
    """An error as the Graph API has it."""
    error: dict[str, Any] = {
        "message": f"(#{code}) {message}", "type": "OAuthException", "code": code, "fbtrace_id": "Az8",
    }  # fmt: skip
    if details:
        error["error_data"] = {"messaging_product": "whatsapp", "details": details}
    return status, {"error": error}, headers


class Twilio(Service):
    """https://www.twilio.com/docs/messaging/api/message-resource"""

    def number_of(self, request: Arrived) -> str:
        return str(request.body["To"])

    def read(self, body: bytes) -> dict[str, Any]:
        return {name: values[0] for name, values in parse_qs(body.decode()).items()}

    def taken(self, request: Arrived, number: int) -> Answer:
        assert request.path == "/2010-04-01/Accounts/AC1/Messages.json"
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        given = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        if given != "AC1:good-token":
            return twilio_error(401, 20003, "Authenticate")
        return 201, {"sid": f"SM{number:032}", "status": "queued", "error_code": None}, {}


def twilio_error(status: int, code: int, message: str, **headers: str) -> Answer:
    """An error as Twilio has it."""
    info = f"https://www.twilio.com/docs/errors/{code}"
    return status, {"code": code, "message": message, "more_info": info, "status": status}, headers


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    """Let `service` answer at `service.url` inside the block; connections are kept, as the providers do."""
    never, writers = asyncio.Event(), set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1)[:1] + line.split(": ", 1)[1:] for line in head[1:] if line)
        body = service.read(await reader.readexactly(int(headers["content-length"])))
        request = Arrived(head[0].split()[1], headers, body, asyncio.get_running_loop().time())
        service.arrived.append(request)
        number = len(service.arrived)
        if service.answers:
            answer: Answer | str = service.answers.pop(0)
        else:
            answer = service.by_number.get(service.number_of(request)) or service.taken(request, number)
        if answer == SILENT:
            await never.wait()
        if isinstance(answer, str):
            return False
        status, said, more = answer
        text = said if isinstance(said, str) else json.dumps(said)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(text.encode())}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + text).encode())
        await writer.drain()
        return True

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while await one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        server.close()
        never.set()
        for writer in writers:
            writer.close()
