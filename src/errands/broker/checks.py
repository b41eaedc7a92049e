"""What must hold of the server before anybody trusts it with work."""

from __future__ import annotations

from errands.broker.client import Client
from errands.core.errors import ConfigurationError


def check_eviction(client: Client, url: str) -> None:
    """Refuse a server that may throw queued work away when it is full.

    Raises:
        ConfigurationError: its `maxmemory-policy` is another than `noeviction`.
    """
    policy = client.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(
            f"the broker at {place(url)} has maxmemory-policy {policy!r}: when it is full it throws queued "
            "work away. Set `maxmemory-policy noeviction` (by CONFIG SET, and in its configuration file), or "
            "use another server for caches."
        )


def place(url: str) -> str:
    """A server's address for people: without user and password."""
    return url.rpartition("@")[2].removeprefix("redis://").removeprefix("rediss://")
