"""A fetcher for tests: it knows the pages it was told of, and all else is as with the real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import httpx

from errands.fetching.fetcher import Fetcher, FetchLimits
from errands.fetching.guard import Guard
from errands.fetching.transport import GuardedTransport


class FakeFetcher(Fetcher):
    """Answers what `add` was told, without any network; what it does not know is a 404.

    Addresses, sizes, types and redirects are judged as the real one does.

    Attributes:
        asked: the addresses that were asked for, in their order.
    """

    def __init__(self, limits: FetchLimits | None = None, *, allow_http: bool = False) -> None:
        super().__init__(Guard(allow_http=allow_http, resolver=_somewhere), limits)
        self.asked: list[str] = []
        self._pages: dict[str, _Page] = {}

    def add(
        self,
        url: str,
        data: bytes = b"",
        content_type: str = "application/octet-stream",
        *,
        status: int = 200,
        location: str | None = None,
        error: Exception | None = None,
    ) -> None:
        """Let `url` answer so; with `error`, fail so: `httpx.ConnectError("refused")`, `FetchFailed("…")`."""
        headers = {"Content-Type": content_type, **({"Location": location} if location else {})}
        self._pages[str(self._guard.parse(url).url)] = _Page(status, headers, data, error)

    def _transport(self) -> httpx.AsyncBaseTransport:
        return GuardedTransport(self._guard, httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        # The guard has put an address in the place of the name.
        url = str(request.url.copy_with(host=str(request.extensions["sni_hostname"])))
        self.asked.append(url)
        page = self._pages.get(url, _Page(404, {}, b""))
        if page.error is not None:
            raise page.error
        return httpx.Response(page.status, headers=page.headers, stream=httpx.ByteStream(page.data))


class _Page(NamedTuple):
    status: int
    headers: dict[str, str]
    data: bytes
    error: Exception | None = None


async def _somewhere(host: str, /) -> Sequence[str]:
    """Every name is at an address that is public."""
    return ["93.184.215.14"]
