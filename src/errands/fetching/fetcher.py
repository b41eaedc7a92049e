"""Fetching what a user's address names, within limits."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import IO

import httpx

from errands.core import retry_after
from errands.core.errors import ConfigurationError
from errands.fetching import content
from errands.fetching.body import unpacked
from errands.fetching.errors import (
    AddressRefused,
    FetchFailed,
    FetchRefused,
    RedirectRefused,
    TooLarge,
)
from errands.fetching.guard import Guard
from errands.fetching.transport import GuardedTransport
from errands.fetching.waiting import wait_for

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Client errors that say "not now" rather than "not this": time-out, too early, too many requests.
_PASSING = frozenset({408, 425, 429})
_CONNECT = 5.0  # seconds for one address of several

Write = Callable[[bytes], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much of what is fetched, and for how long.

    Args:
        max_bytes: of the body, as it comes and unpacked.
        types: content types that are wanted, in small letters: names, or patterns such as "image/*".
        total: seconds for everything: looking up, connecting, redirects, the whole body.
        first_byte: seconds until a server begins to answer, for each address that is asked.
        redirects: how many are followed; 0 follows none.

    Raises:
        ConfigurationError: a limit that lets nothing through.
    """

    max_bytes: int = 10 * 1024 * 1024
    types: tuple[str, ...] = ("*/*",)
    total: float = 30.0
    first_byte: float = 10.0
    redirects: int = 5

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.total, self.first_byte) <= 0 or self.redirects < 0:
            raise ConfigurationError(f"{self}: limits of bytes and seconds must be above 0")
        if not isinstance(self.types, tuple) or not self.types:
            raise ConfigurationError(f'{self}: name the types in a tuple, as in types=("image/*",)')


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched, in memory.

    `url` is where it was in the end; `content_type` what it is, by its first bytes where these can tell.
    """

    url: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """What was fetched, in a file that has no name and is gone when it is closed, or its process ends.

    `file` is open for reading, at its beginning; `size` in bytes; the rest as of `Fetched`.
    """

    url: str
    content_type: str
    size: int
    file: IO[bytes]


class Fetcher:
    """Fetches what addresses name that users gave. Ask for it in a task's signature: `*, fetcher: Fetcher`.

    Each method is there for `async def` code (with an `a`) and for plain code.

    Args:
        guard: which addresses may be called; by default public ones, over https.
        limits: those of calls that give none.
        tls: certificates of your own to trust; None trusts the usual ones.
        user_agent: how it introduces itself.

    All of them raise:
        AddressRefused: the address, or one it redirects to, must not be called.
        RedirectRefused: too many redirects, or one from https to http.
        TooLarge, WrongType: it is not what `limits` allow.
        FetchRefused: the root of the above; or the server says no: 404 and its like.
        FetchFailed: another attempt may succeed: no answer, too slow, 5xx, 429.
    """

    def __init__(
        self,
        guard: Guard | None = None,
        limits: FetchLimits | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        user_agent: str = "Errands-Fetch/1",
    ) -> None:
        self._guard = guard or Guard()
        self._limits = limits or FetchLimits()
        self._tls = tls
        self._user_agent = user_agent

    async def afetch(self, url: str, limits: FetchLimits | None = None) -> Fetched:
        """Fetch into memory; see the class for errors."""
        data = bytearray()

        async def write(chunk: bytes) -> None:
            data.extend(chunk)

        found, kind = await self._receive(url, limits or self._limits, write)
        return Fetched(found, kind, bytes(data))

    def fetch(self, url: str, limits: FetchLimits | None = None) -> Fetched:
        """`afetch` for plain code."""
        return wait_for(self.afetch(url, limits))

    @asynccontextmanager
    async def adownload(self, url: str, limits: FetchLimits | None = None) -> AsyncIterator[FetchedFile]:
        """Fetch into a temporary file, which goes away at the end of the block; see the class for errors."""
        found = await self._into_file(url, limits or self._limits)
        with found.file:
            yield found

    @contextmanager
    def download(self, url: str, limits: FetchLimits | None = None) -> Iterator[FetchedFile]:
        """`adownload` for plain code."""
        found = wait_for(self._into_file(url, limits or self._limits))
        with found.file:
            yield found

    # -- the one way

    async def _into_file(self, url: str, limits: FetchLimits) -> FetchedFile:
        file = tempfile.TemporaryFile()  # noqa: SIM115 — whoever gets it closes it
        try:

            async def write(chunk: bytes) -> None:
                await asyncio.to_thread(file.write, chunk)

            found, kind = await self._receive(url, limits, write)
            size = file.tell()
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return FetchedFile(found, kind, size, file)

    async def _receive(self, url: str, limits: FetchLimits, write: Write) -> tuple[str, str]:
        """Give `write` the body; returns where it was in the end, and its type."""
        try:
            async with asyncio.timeout(limits.total), self._transport() as transport:
                response, found = await self._follow(transport, url, limits)
                try:
                    return found, await _take(response, limits, write)
                finally:
                    await response.aclose()
        except TimeoutError as exc:
            raise FetchFailed(f"it was not all there within {limits.total:g} s") from exc
        except httpx.HTTPError as exc:
            raise FetchFailed(f"no answer, or not all of it: {type(exc).__name__} {exc}".rstrip()) from exc

    def _transport(self) -> httpx.AsyncBaseTransport:
        """For one fetch alone: kept connections would be shared by all names at an address."""
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        return GuardedTransport(self._guard, httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False))

    async def _follow(
        self, transport: httpx.AsyncBaseTransport, url: str, limits: FetchLimits
    ) -> tuple[httpx.Response, str]:
        for _ in range(limits.redirects + 1):
            asked = self._guard.parse(url).url
            response = await self._ask(transport, asked, limits.first_byte)
            if response.status_code not in _REDIRECTS:
                return response, str(asked)
            await response.aclose()
            url = _next(asked, response.headers.get("location"))
        raise RedirectRefused(f"more than {limits.redirects} redirects are not followed")

    async def _ask(
        self, transport: httpx.AsyncBaseTransport, url: httpx.URL, first_byte: float
    ) -> httpx.Response:
        request = httpx.Request(
            "GET",
            url,
            headers={"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": self._user_agent},
            extensions={"timeout": {"connect": min(_CONNECT, first_byte)}},
        )
        try:
            async with asyncio.timeout(first_byte):
                return await transport.handle_async_request(request)
        except TimeoutError as exc:
            raise FetchFailed(f"{url.host} did not begin to answer within {first_byte:g} s") from exc


def _next(asked: httpx.URL, location: str | None) -> str:
    """Where a redirect leads. Whether it may be called is the guard's to say."""
    if not location:
        raise RedirectRefused(f"{asked.host} redirects to nowhere")
    try:
        leads_to = asked.join(location)
    except httpx.InvalidURL as exc:
        raise AddressRefused(f"{asked.host} redirects to what is no address: {exc}") from exc
    if asked.scheme == "https" and leads_to.scheme == "http":
        raise RedirectRefused(f"{asked.host} redirects from https to http, which is not followed")
    return str(leads_to)


async def _take(response: httpx.Response, limits: FetchLimits, write: Write) -> str:
    """Write the body while it comes, and tell its type. Nothing is written of what is of the wrong one."""
    _check_status(response)
    claim = content.claimed(response.headers.get("content-type"))
    content.check_claim(claim, limits.types)
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limits.max_bytes:
        raise TooLarge(f"there are {length[:20]} bytes; {limits.max_bytes} are allowed")
    encoding = response.headers.get("content-encoding", "").strip().lower()
    kind: str | None = None
    held = b""
    async for chunk in unpacked(response.aiter_raw(), encoding, limits.max_bytes):
        if kind is None:
            held += chunk
            if len(held) < content.BEGINNING:
                continue
            kind, chunk = content.judge(claim, held[: content.BEGINNING], limits.types), held
        await write(chunk)
    if kind is None:
        kind = content.judge(claim, held, limits.types)
        await write(held)
    return kind


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if 200 <= status < 300:
        return
    text = f"the server answered {status}"
    if status >= 500 or status in _PASSING:
        wait = retry_after.seconds(response.headers.get("retry-after"))
        raise FetchFailed(text, status=status, retry_after=wait)
    raise FetchRefused(text, status=status)
