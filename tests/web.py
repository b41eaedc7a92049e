"""A web server on loopback, in a thread of its own, that answers byte for byte what a test says."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


def response(
    body: bytes = b"",
    content_type: str = "text/plain",
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> bytes:
    """A whole answer."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


class Web:
    """Pages by path; what is not among them is a 404. `asked` has each request: its path and its headers;
    `bodies` what came with it."""

    def __init__(self) -> None:
        self.pages: dict[str, Answer] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.left = threading.Event()  # somebody went away before the answer's end
        self.port = 0

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def redirect(self, path: str, location: str, status: int = 302) -> None:
        """Let `path` lead to `location`."""
        self.pages[path] = response(status=status, headers={"Location": location})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
            path = line.split(" ")[1]
            self.bodies.append(await reader.readexactly(int(headers.get("content-length", 0))))
            self.asked.append((path, headers))
            answer = self.pages.get(path, response(status=404))
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                gone = asyncio.ensure_future(reader.read())
                writing = asyncio.ensure_future(answer(writer))  # type: ignore[arg-type]
                await asyncio.wait({gone, writing}, return_when=asyncio.FIRST_COMPLETED)
                if not writing.done():
                    self.left.set()
                gone.cancel()
                writing.cancel()
                with suppress(asyncio.CancelledError):
                    await writing
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            with suppress(ConnectionError):
                writer.close()

    async def _run(
        self, host: str, port: int, tls: ssl.SSLContext | None, ready: threading.Event, end: asyncio.Event
    ) -> None:
        server = await asyncio.start_server(self._serve, host, port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await end.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


@contextmanager
def web(*, host: str = "127.0.0.1", port: int = 0, certificate: Path | None = None) -> Iterator[Web]:
    """A server that runs inside the block."""
    made, ready, loop, end = Web(), threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(made._run(host, port, tls, ready, end)), daemon=True
    )
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
        loop.close()


def slowly(chunks: Iterator[bytes], seconds: float = 0.01) -> Answer:
    """Write `chunks`, with a rest after each."""

    async def write(writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(seconds)

    return write


async def never(writer: asyncio.StreamWriter) -> None:
    """Say nothing, and keep the connection."""
    await asyncio.Event().wait()
