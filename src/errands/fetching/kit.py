"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from errands.core.errors import ConfigurationError
from errands.fetching.fetcher import Fetcher, FetchLimits
from errands.fetching.guard import Guard

if TYPE_CHECKING:
    from errands.app import Errands


class FetchingKit:
    """See `kit`."""

    def __init__(
        self, fetcher: Callable[[], Fetcher] | None, limits: FetchLimits | None, allow_http: bool
    ) -> None:
        self._fetcher = fetcher
        self._limits = limits
        self._allow_http = allow_http

    def install(self, app: Errands) -> None:
        """Provide `Fetcher`.

        Raises:
            ConfigurationError: ERRANDS_FETCH_ALLOW cannot be used.
        """
        try:
            guard = Guard(app.settings.fetch_allow, allow_http=self._allow_http)
        except ValueError as exc:
            raise ConfigurationError(f"ERRANDS_FETCH_ALLOW: {exc}") from exc
        app.provide(Fetcher, self._fetcher or (lambda: Fetcher(guard, self._limits)), scope="process")


def kit(
    fetcher: Callable[[], Fetcher] | None = None,
    *,
    limits: FetchLimits | None = None,
    allow_http: bool = False,
) -> FetchingKit:
    """A fetcher for an app: `app.use(fetching.kit())`.

    Args:
        fetcher: makes it, once a process; by default one by the settings. Tests give `FakeFetcher`.
        limits: those of calls that give none: see `FetchLimits`.
        allow_http: call public addresses without TLS too.
    """
    return FetchingKit(fetcher, limits, allow_http)
