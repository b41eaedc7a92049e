"""Which addresses may be called from inside our network (SSRF, OWASP A10).

An address given by a stranger is checked in two steps. `Guard.parse` reads the URL strictly; `Guard.resolve`
asks for its A and AAAA records once, and lets none of them be anything but public. Whoever connects must
connect to the very addresses that `resolve` returned: a name that is asked for a second time may answer
differently. `GuardedTransport` does so for httpx.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

import httpx

from errands.fetching.addresses import Address, is_public, literal
from errands.fetching.errors import AddressRefused, FetchFailed
from errands.fetching.resolving import Resolver, SystemResolver

LONGEST = 2048
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_AUTHORITY = re.compile(r"[^:/?#]*://([^/?#]*)")
# Below 1024 are the services that could be made to read a request as their own (mail, for one). Above it,
# those that browsers do not call either (WHATWG Fetch, 2.9), and two stores that read commands line by line.
_UNSAFE_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, *range(6665, 6670), 6679, 6697,
     10080, 11211}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """An address that may be called: `host` in ASCII, as TLS and the Host header want it."""

    url: httpx.URL
    host: str
    port: int
    exempt: bool
    addresses: tuple[Address, ...] = ()


class Guard:
    """Decides which addresses may be called.

    Args:
        allow: `host:port` pairs that may be called whatever they are, over http too: servers of one's own,
            and the local run's. The host is compared as it is written, not as it is resolved.
        allow_http: whether public addresses may be called without TLS.
        resolver: looks names up; by default as the system does.
        setting: where `allow` comes from, for messages.

    Raises:
        ValueError: `allow` holds something else than host:port.
    """

    def __init__(
        self,
        allow: str | Iterable[str] = (),
        *,
        allow_http: bool = False,
        resolver: Resolver | None = None,
        setting: str = "ERRANDS_FETCH_ALLOW",
    ) -> None:
        pairs = allow.split(",") if isinstance(allow, str) else allow
        self._setting = setting
        self._allow = frozenset(self._pair(pair) for pair in pairs if pair.strip())
        self._allow_http = allow_http
        self._resolver = resolver or SystemResolver()

    def parse(self, url: str) -> Target:
        """Read `url`, bring it into its one form, and check what can be told without asking anybody.

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
        host = parsed.raw_host.decode("ascii").removesuffix(".").lower()
        authority = _AUTHORITY.match(url)
        if not host or authority is None:
            raise AddressRefused("the address names no host")
        if "@" in authority[1]:
            raise AddressRefused("the address must not hold a user name or password")
        try:
            address = literal(host)
        except ValueError as exc:
            raise AddressRefused(f"{host!r} is no host name, and no address either: {exc}") from exc
        host = host if address is None else str(address)
        port = parsed.port if parsed.port is not None else (443 if parsed.scheme == "https" else 80)
        parsed = parsed.copy_with(host=host, fragment=None)
        if len(str(parsed)) > LONGEST:
            raise AddressRefused(f"the address is over {LONGEST} characters long, escaped")
        known = () if address is None else (address,)
        target = Target(parsed, host, port, (host, port) in self._allow, known)
        if not target.exempt:
            self._check(target)
        return target

    async def resolve(self, url: str) -> Target:
        """`parse`, then look the host up, once, and check everything it stands for.

        Raises:
            AddressRefused: as `parse`, or one of its addresses is not public.
            FetchFailed: the name can't be looked up now.
        """
        target = self.parse(url)
        if target.addresses:
            return target
        found = await self._resolver(target.host)
        try:
            addresses = tuple(dict.fromkeys(ip_address(text) for text in found))
        except ValueError as exc:
            raise FetchFailed(f"{target.host} cannot be found: {exc}") from exc
        if not addresses:
            raise FetchFailed(f"{target.host} has no address")
        # One inner address among outer ones is enough: which of them is called would be chance.
        inner = next((address for address in addresses if not is_public(address)), None)
        if inner is not None and not target.exempt:
            raise AddressRefused(
                f"{target.host} stands for {inner}, which is not public; to call it all the same, add "
                f"{target.host}:{target.port} to {self._setting}"
            )
        return replace(target, addresses=addresses)

    def _check(self, target: Target) -> None:
        host, port = target.host, target.port
        if target.url.scheme == "http" and not self._allow_http:
            raise AddressRefused(f"{host}: use https, or add {host}:{port} to {self._setting}")
        if port not in (80, 443) and not (1024 <= port < 65536 and port not in _UNSAFE_PORTS):
            raise AddressRefused(f"port {port} is not called: use 443, 80, or another one of a web server")
        if any(not is_public(address) for address in target.addresses):
            raise AddressRefused(f"{host} is not a public address")
        if not target.addresses and not _HOST.fullmatch(host):
            raise AddressRefused(f"{host!r} is not a host name")

    def _pair(self, text: str) -> tuple[str, int]:
        host, colon, port = text.strip().lower().rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{text!r}: exempt addresses are written host:port ({self._setting})")
        host = host.removeprefix("[").removesuffix("]")
        try:
            address = literal(host)
        except ValueError as exc:
            raise ValueError(f"{text!r}: {exc} ({self._setting})") from exc
        return (host if address is None else str(address)), int(port)
