"""A kombu transport that keeps queues in Valkey or Redis Streams: the classes to name, and by which address.

The work is done in `streams/`; `docs/transport.md` says what it promises and which options it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as stock

from errands.broker.green import green
from errands.broker.streams.channel import Channel

__all__ = ["Channel", "SentinelChannel", "SentinelTransport", "TLSTransport", "Transport", "celery_broker"]

_MODULE = "errands.broker.transport"
# When a connection fails kombu goes to the next address, and chooses the transport by its scheme alone.
_OURS = {"redis": "errands", "rediss": "errandss"}

TRANSPORT_ALIASES.setdefault("errands", f"{_MODULE}:Transport")
TRANSPORT_ALIASES.setdefault("errandss", f"{_MODULE}:TLSTransport")


# kombu publishes no types.
_Transport: Any = stock.Transport


class Alternates:
    """The addresses that kombu tries one after the other, with schemes that mean us."""

    def __init__(self, urls: Iterator[str]) -> None:
        self._urls = urls

    def __iter__(self) -> Alternates:
        return self

    def __next__(self) -> str:
        scheme, separator, rest = next(self._urls).partition("://")
        return f"{_OURS.get(scheme, scheme)}{separator}{rest}"


class Transport(_Transport):
    """For `redis://`. Also known to kombu by the scheme `errands://`, once this module is imported."""

    Channel = Channel

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        if client.cycle is not None and not isinstance(client.cycle, Alternates):
            client.cycle = self._alternates(client.cycle)

    @staticmethod
    def _alternates(urls: Iterator[str]) -> Iterator[str] | None:
        return Alternates(urls)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Read when the loop polls. kombu's sweep for messages that came back is not needed: see `Upkeep`."""
        super().register_with_event_loop(connection, loop)
        self.cycle._restore_messages_tref.cancel()


class TLSChannel(Channel):
    """A channel whose connections are encrypted, and whose server must show a certificate."""

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        conninfo = self.connection.client
        conninfo.ssl = conninfo.ssl or {"ssl_cert_reqs": "required"}
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        return parameters


class TLSTransport(Transport):
    """For `rediss://`. The server's certificate is checked, if the address says nothing else."""

    Channel = TLSChannel


_SentinelChannel: Any = stock.SentinelChannel


class SentinelChannel(Channel, _SentinelChannel):
    """A channel that asks sentinels for the server."""

    connection_class = green(_SentinelChannel.connection_class)
    connection_class_ssl = green(_SentinelChannel.connection_class_ssl)


class SentinelTransport(Transport):
    """For `sentinel://`. The sentinels know where to go; kombu does not go from one to the next."""

    default_port = 26379
    Channel = SentinelChannel

    @staticmethod
    def _alternates(urls: Iterator[str]) -> None:
        return None


def celery_broker(url: str) -> tuple[str, str | None]:
    """What Celery is told for the broker's address.

    Args:
        url: as people write it; several with `;`.

    Returns:
        `broker_url`, and `broker_transport`; None where kombu finds the transport by the address.
    """
    scheme = url.partition("://")[0]
    if scheme == "redis":
        return url, f"{_MODULE}:Transport"
    if scheme == "rediss":
        return url, f"{_MODULE}:TLSTransport"
    if scheme == "sentinel":
        return url, f"{_MODULE}:SentinelTransport"
    if scheme in ("unix", "redis+socket"):
        # kombu takes what is before a plus for the transport, whatever it was told.
        path = url.partition("://")[2].replace("?db=", "?virtual_host=")
        return f"errands+socket://{path}", None
    if scheme.startswith("stock+"):
        return url.removeprefix("stock+"), "errands.broker.lists:Transport"
    return url, None
