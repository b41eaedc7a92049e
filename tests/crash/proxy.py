"""A TCP proxy that stands between a system and its server, and cuts, slows or swallows what passes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

_PIECE = 64 * 1024


class Proxy:
    """Listens on a free port of the loopback address, in a thread of its own: `with Proxy(port) as proxy`.

    Args:
        port: of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.delay = 0.0  # seconds that each piece takes, either way
        self._server_port = port
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def connections(self) -> int:
        """How many connections pass through it now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """End all connections at once, without a goodbye."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    def swallow(self) -> None:
        """Let nothing pass any more on the connections that there are, and tell nobody; new ones are well."""
        self._loop.call_soon_threadsafe(lambda: self._silent.update(self._writers))

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(10):
            raise RuntimeError("the proxy does not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, server}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, server), self._pump(answers, writer))
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            self._writers -= both
            for end in both:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if writer not in self._silent:
                    writer.write(piece)
                    await writer.drain()
        # One side has ended: so has the other.
        if writer not in self._silent:
            writer.transport.abort()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()
