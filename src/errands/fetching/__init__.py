"""Fetching what a user's address names, without being led into our own network.

`app.use(fetching.kit())`, then `*, fetcher: Fetcher` in a task's signature. `Guard` and `GuardedTransport`
do the same for an httpx client of one's own.
"""

from errands.fetching.addresses import is_public
from errands.fetching.errors import (
    AddressRefused,
    FetchError,
    FetchFailed,
    FetchRefused,
    RedirectRefused,
    TooLarge,
    WrongType,
)
from errands.fetching.fake import FakeFetcher
from errands.fetching.fetcher import Fetched, FetchedFile, Fetcher, FetchLimits
from errands.fetching.guard import Guard, Target
from errands.fetching.kit import FetchingKit, kit
from errands.fetching.resolving import Resolver, SystemResolver
from errands.fetching.transport import GuardedTransport

__all__ = [
    "AddressRefused",
    "FakeFetcher",
    "FetchError",
    "FetchFailed",
    "FetchLimits",
    "FetchRefused",
    "Fetched",
    "FetchedFile",
    "Fetcher",
    "FetchingKit",
    "Guard",
    "GuardedTransport",
    "RedirectRefused",
    "Resolver",
    "SystemResolver",
    "Target",
    "TooLarge",
    "WrongType",
    "is_public",
    "kit",
]
