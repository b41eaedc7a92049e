"""Which addresses may be called from inside our network, and how to call no others (SSRF, OWASP A10).

An address given by a stranger is checked in two steps. `Guard.parse` reads the URL strictly; `Guard.resolve`
asks for its A and AAAA records once, and lets none of them be anything but public. Whoever connects must
connect to the very addresses that `resolve` returned: a name that is asked for a second time may answer
differently. `GuardedTransport` does so for httpx.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

from errands.kits.webhooks.errors import AddressRefused, WebhookFailed

# The IANA special-purpose registries (RFC 6890 and later), written out: the standard library's own list
# differs between Python versions.
_CLOSED_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Of IPv6 only global unicast is public. IPv4-mapped addresses and NAT64 lie outside it: they are other ways
# to write an IPv4 address, which whoever means it can write as such.
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)

LONGEST = 2048
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
# A last label that is a number makes a host an IPv4 address to some: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


@dataclass(frozen=True, slots=True)
class Target:
    """An address that may be called: `host` in ASCII, as TLS and the Host header want it."""

    url: httpx.URL
    host: str
    port: int
    exempt: bool
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether `address` belongs to the public internet and to one host in it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    return address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


class Guard:
    """Decides which addresses may be called.

    Args:
        allow: `host:port` pairs that may be called whatever they are, over http too: receivers of one's own,
            and the local run's. The host is compared as written, not as resolved.
        allow_http: whether public addresses may be called without TLS.
    """

    def __init__(self, allow: str | Iterable[str] = (), *, allow_http: bool = False) -> None:
        pairs = allow.split(",") if isinstance(allow, str) else allow
        self._allow = frozenset(_pair(pair) for pair in pairs if pair.strip())
        self._allow_http = allow_http

    def parse(self, url: str) -> Target:
        """Read `url` and check what can be told without asking anybody.

        Raises:
            AddressRefused: the scheme, the port, credentials, or a host that can't be public.
        """
        if len(url) > LONGEST or not url.isprintable() or any(c in url for c in " \\"):
            raise AddressRefused(
                f"the address holds characters that no address has, or more than {LONGEST} of them"
            )
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as exc:
            raise AddressRefused(f"this is no address: {exc}") from exc
        if parsed.scheme not in ("http", "https"):
            raise AddressRefused(f"only http and https are called, not {parsed.scheme!r}")
        if parsed.userinfo:
            raise AddressRefused("the address must not hold a user name or password")
        host = parsed.raw_host.decode("ascii").removesuffix(".").lower()
        port = parsed.port if parsed.port is not None else (443 if parsed.scheme == "https" else 80)
        exempt = (host, port) in self._allow
        if not host:
            raise AddressRefused("the address names no host")
        parsed = parsed.copy_with(host=host, fragment=None)
        if len(str(parsed)) > LONGEST:
            raise AddressRefused(f"the address is over {LONGEST} characters long, escaped")
        target = Target(parsed, host, port, exempt)
        if not exempt:
            self._check(target)
        return target

    async def resolve(self, url: str) -> Target:
        """`parse`, then look the host up, once, and check everything it stands for.

        Raises:
            AddressRefused: as `parse`, or one of its addresses is not public.
            WebhookFailed: the name can't be looked up now.
        """
        target = self.parse(url)
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise WebhookFailed(f"{target.host} cannot be found: {exc}") from exc
        addresses = tuple(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
        if not addresses:
            raise WebhookFailed(f"{target.host} has no address")
        # One inner address among outer ones is enough: which of them is called would be chance.
        inner = next((address for address in addresses if not is_public(address)), None)
        if inner is not None and not target.exempt:
            raise AddressRefused(
                f"{target.host} stands for {inner}, which is not public; to call it all the same, add "
                f"{target.host}:{target.port} to ERRANDS_WEBHOOK_ALLOW"
            )
        return Target(target.url, target.host, target.port, target.exempt, addresses)

    def _check(self, target: Target) -> None:
        host, port = target.host, target.port
        if target.url.scheme == "http" and not self._allow_http:
            raise AddressRefused(f"{host}: use https, or add {host}:{port} to ERRANDS_WEBHOOK_ALLOW")
        # Below 1024 are the services that could be made to read a request as their own (mail, for one).
        if port not in (80, 443) and not 1024 <= port < 65536:
            raise AddressRefused(f"port {port} is not called: use 443, 80, or one from 1024")
        try:
            literal = None if "%" in host else ip_address(host)
        except ValueError:
            literal = None
        if literal is not None and not is_public(literal):
            raise AddressRefused(f"{host} is not a public address")
        if literal is None and (not _HOST.fullmatch(host) or _NUMERIC.fullmatch(host)):
            raise AddressRefused(f"{host!r} is not a host name")


class GuardedTransport(httpx.AsyncBaseTransport):
    """An httpx transport that connects only to addresses the guard has checked, and to those very ones.

    The Host header and the name that TLS checks stay those of the URL. Use it with `trust_env=False`: a
    proxy from the environment would look names up again, elsewhere.

    Args:
        guard: what may be called.
        inner: what carries the request; connections must not be kept, since they would be shared by all
            names at the same address.
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


def _pair(text: str) -> tuple[str, int]:
    host, colon, port = text.strip().lower().rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r}: exempt addresses are written host:port (ERRANDS_WEBHOOK_ALLOW)")
    return host.removeprefix("[").removesuffix("]"), int(port)
