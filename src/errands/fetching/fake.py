"""A fetcher for tests: it knows the pages it was told of, and all else is as with the real one."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from errands.fetching.fetcher import Fetcher, FetchLimits
from errands.fetching.guard import Guard
from errands.fetching.transport import GuardedTransport


class FakeFetcher(Fetcher):
    """Answers from `pages`, without any network; what is not among them is a 404.

    Addresses, sizes, types and redirects are judged as the real one does.

    Attributes:
        pages: the answer to each address.
        asked: the addresses that were asked for, in their order.
    """

    def __init__(self, limits: FetchLimits | None = None, *, allow_http: bool = True) -> None:
        super().__init__(Guard(allow_http=allow_http, resolver=_somewhere), limits)
        self.pages: dict[str, httpx.Response | Exception] = {}
        self.asked: list[str] = []

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
        """Let `url` answer so; with `error`, fail so (`httpx.ConnectError("refused")`, `FetchFailed(…)`)."""
        headers = {"Content-Type": content_type, **({"Location": location} if location else {})}
        self.pages[str(self._guard.parse(url).url)] = error or httpx.Response(
            status, headers=headers, content=data
        )

    def _transport(self) -> httpx.AsyncBaseTransport:
        return GuardedTransport(self._guard, httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        # The guard has put an address in the place of the name.
        host = str(request.extensions["sni_hostname"])
        url = str(request.url.copy_with(host=host))
        self.asked.append(url)
        answer = self.pages.get(url, httpx.Response(404))
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


async def _somewhere(host: str, /) -> Sequence[str]:
    """Every name is at an address that is public."""
    return ["93.184.215.14"]
