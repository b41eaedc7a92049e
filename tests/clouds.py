"""Peers for the storage kit: a moto server for S3, and one that does as Cloudinary documents."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, ClassVar

import boto3
import uvicorn
from moto.server import ThreadedMotoServer
from PIL import Image, UnidentifiedImageError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEYS = {"aws_access_key_id": "AKIATESTS", "aws_secret_access_key": "not-a-secret"}
BUCKET = "school-files"


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a moto server that has the bucket `BUCKET`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        s3_client(f"http://{host}:{port}").create_bucket(Bucket=BUCKET)
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def s3_client(url: str) -> Any:
    """Another client than ours, to look at what is in the bucket."""
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **KEYS)


class Cloudinary:
    """Does as Cloudinary's documentation of the Upload API and of the Admin API's `resources` says.

    `answers` are given before anything is done: `(status, headers, body)`, "hang", or "cut" for a connection
    that ends in the middle.
    """

    name, key, secret = "demo", "1234567890", "abcd"
    _unsigned: ClassVar = {"file", "api_key", "cloud_name", "resource_type", "signature"}

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], dict[str, Any]] = {}
        self.answers: list[Any] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""
        self._never = threading.Event()
        self.app = Starlette(
            routes=[
                Route("/v1_1/{cloud}/resources/{kind}/upload/{id:path}", self.resource),
                Route("/v1_1/{cloud}/{kind}/{action}", self.act, methods=["GET", "POST"]),
            ]
        )

    async def act(self, request: Request) -> Response:
        form = dict(await request.form()) if request.method == "POST" else dict(request.query_params)
        values = {name: value for name, value in form.items() if isinstance(value, str)}
        action, kind = request.path_params["action"], request.path_params["kind"]
        self.requests.append((action, kind, values))
        if (told := await self._told()) is not None:
            return told
        if request.path_params["cloud"] != self.name or values.get("api_key") != self.key:
            return _error(401, "Unknown API key " + values.get("api_key", ""))
        text = "&".join(f"{k}={values[k]}" for k in sorted(values) if k not in self._unsigned)
        if hashlib.sha1((text + self.secret).encode()).hexdigest() != values.get("signature"):
            return _error(401, f"Invalid Signature {values.get('signature')}. String to sign - '{text}'.")
        place = (kind, values.get("public_id", ""))
        if action == "upload":
            return await self._upload(place, values, form["file"])
        if action == "destroy":
            return JSONResponse({"result": "ok" if self.files.pop(place, None) else "not found"})
        found = self.files.get(place)
        if found is None or (kind == "image" and values.get("format") != found["told"]["format"]):
            return _error(404, f"Resource not found - {place[1]}")
        return Response(found["content"])

    async def resource(self, request: Request) -> Response:
        kind, public_id = request.path_params["kind"], request.path_params["id"]
        self.requests.append(("resource", kind, {"public_id": public_id}))
        if (told := await self._told()) is not None:
            return told
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme != "Basic" or b64decode(given).decode() != f"{self.key}:{self.secret}":
            return _error(401, "Invalid credentials")
        found = self.files.get((kind, public_id))
        if found is None:
            return _error(404, f"Resource not found - {public_id}")
        return JSONResponse({**found["told"], "context": {"custom": found["context"]}})

    async def _upload(self, place: tuple[str, str], values: dict[str, str], file: Any) -> Response:
        kind, public_id = place
        content = await file.read()
        told: dict[str, Any] = {
            "public_id": public_id, "version": 1700000000 + len(self.requests), "resource_type": kind,
            "type": "upload", "bytes": len(content), "etag": hashlib.md5(content).hexdigest(),
        }  # fmt: skip
        ending = ""
        if kind == "image":
            try:
                with Image.open(BytesIO(content)) as image:
                    told |= {"width": image.width, "height": image.height}
                    told["format"] = {"JPEG": "jpg"}.get(image.format or "", (image.format or "").lower())
            except UnidentifiedImageError:
                return _error(400, "Invalid image file")
            ending = "." + told["format"]
        told["secure_url"] = f"{self.url}/{self.name}/{kind}/upload/v{told['version']}/{public_id}{ending}"
        self.files[place] = {"content": content, "told": told, "context": _context(values["context"])}
        return JSONResponse(told)

    async def _told(self) -> Response | None:
        answer = self.answers.pop(0) if self.answers else None
        if answer == "hang":
            await asyncio.to_thread(self._never.wait, 60)
        if answer == "cut":
            return Response(b"{", headers={"content-length": "500"})
        return Response(answer[2], answer[0], answer[1]) if isinstance(answer, tuple) else None

    @contextmanager
    def serving(self) -> Iterator[Cloudinary]:
        """On a port of its own."""
        config = uvicorn.Config(self.app, port=0, log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        socket = config.bind_socket()
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._never.set()
            server.should_exit = True
            thread.join(10)


def _context(text: str) -> dict[str, str]:
    """`name=value|name=value`, where a backslash takes the meaning off `=` and `|`."""
    found, name, part, letters = {}, "", "", iter(text + "|")
    for letter in letters:
        if letter == "\\":
            part += next(letters)
        elif letter == "=":
            name, part = part, ""
        elif letter == "|":
            found[name], part = part, ""
        else:
            part += letter
    return found


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status, {"X-Cld-Error": message})
