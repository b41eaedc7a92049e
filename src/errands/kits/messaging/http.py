"""One POST to a provider, with the errors of the way there translated at this one boundary."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from errands.kits.messaging.errors import ProviderRefused, ProviderUnavailable, UnknownOutcomeError

# Nothing of the message has left us.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Http:
    """Connections to one provider that are kept, for each event loop its own.

    Args:
        who: the provider's name, for errors.
        timeout: seconds for connecting, and for the answer.
        options: of `httpx.AsyncClient`: `auth`, `headers`.
    """

    def __init__(self, who: str, *, timeout: float, **options: Any) -> None:
        self._who = who
        self._options = {"timeout": timeout, "trust_env": False, **options}
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def post(self, url: str, **body: Any) -> httpx.Response:
        """The provider's answer, whatever it is.

        Raises:
            ProviderUnavailable: there is no connection; nothing was sent.
            UnknownOutcomeError: it was sent, and no answer came.
            ProviderRefused: the URL cannot be called.
        """
        try:
            return await self._own().post(url, **body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise ProviderRefused(f"{self._who}: {url} cannot be called: {exc}") from exc
        except _NOT_SENT as exc:
            raise ProviderUnavailable(f"no connection to {self._who}: {_told(exc)}") from exc
        except httpx.HTTPError as exc:
            raise UnknownOutcomeError(
                f"{self._who} was sent the message and did not answer ({_told(exc)}): it may have been taken "
                "or not. It is not sent again by itself; look for it at the provider first."
            ) from exc

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _own(self) -> httpx.AsyncClient:
        # Kept connections belong to the event loop that opened them.
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client, self._loop = httpx.AsyncClient(**self._options), loop
        return self._client


def json_of(response: httpx.Response) -> dict[str, Any]:
    """The answer as a JSON object; empty where it is none."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _told(exc: Exception) -> str:
    return f"{type(exc).__name__} {exc}".strip()
