"""Asking the name service."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from errands.fetching.errors import FetchFailed


class Resolver(Protocol):
    """Answers all addresses, IPv4 and IPv6, that a name stands for now: `await resolver("example.org")`.

    Raises:
        FetchFailed: the name can't be looked up now.
    """

    async def __call__(self, host: str, /) -> Sequence[str]: ...


class SystemResolver:
    """The machine's own, as configured: name servers, /etc/hosts.

    A question that is not answered holds its thread for as long as the system asks on. So each has one of its
    own: in the loop's pool a few names that answer slowly would keep all other work there waiting.
    """

    async def __call__(self, host: str, /) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[str]] = loop.create_future()

        def settle(found: Any) -> None:
            if future.done():  # nobody waits any more
                return
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

        def ask() -> None:
            found: Any
            try:
                entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                found = [str(entry[4][0]) for entry in entries]
            except (OSError, UnicodeError) as exc:
                found = FetchFailed(f"{host} cannot be found: {exc}")
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found)

        threading.Thread(target=ask, name=f"errands-resolver {host}", daemon=True).start()
        return await future
