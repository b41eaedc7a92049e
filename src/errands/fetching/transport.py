"""Connecting to the very addresses that were checked."""

from __future__ import annotations

import httpx

from errands.fetching.guard import Guard


class GuardedTransport(httpx.AsyncBaseTransport):
    """An httpx transport that connects only to addresses the guard has checked, and to those very ones.

    The Host header and the name that TLS checks stay those of the URL. Use it with `trust_env=False`: a
    proxy from the environment would look names up again, elsewhere.

    Args:
        guard: what may be called.
        inner: what carries the request; connections must not be kept, since they would be shared by all
            names at the same address.

    Raises:
        AddressRefused, FetchFailed: by each request, as `Guard.resolve`.
    """

    def __init__(self, guard: Guard, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._guard = guard
        self._inner = inner or httpx.AsyncHTTPTransport(
            trust_env=False, limits=httpx.Limits(max_connections=100, max_keepalive_connections=0)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = await self._guard.resolve(str(request.url))
        failure: httpx.TransportError | None = None
        for address in target.addresses:
            pinned = httpx.Request(
                request.method,
                target.url.copy_with(host=str(address)),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": target.host},
            )
            try:
                return await self._inner.handle_async_request(pinned)
            except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
                failure = exc
        assert failure is not None  # noqa: S101
        raise failure

    async def aclose(self) -> None:
        await self._inner.aclose()
