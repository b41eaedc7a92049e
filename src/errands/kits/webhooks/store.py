"""Who wants which webhooks."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Database, Keyring
from errands.core import clock
from errands.fetching import Guard
from errands.kits.webhooks.errors import DuplicateEndpoint, UnknownEndpoint
from errands.kits.webhooks.line import Line
from errands.kits.webhooks.records import Disabling, Records
from errands.kits.webhooks.signing import new_secret
from errands.kits.webhooks.tables import endpoints


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that wants events. Its secrets are not part of it: see `WebhookStore.secrets`.

    `ordered`: the next event waits until the one before was delivered or given up. `previous_until`: when the
    secret before the last rotation ends, None where there is none. `failing_since`: the first failed attempt
    after the last that succeeded.
    """

    id: str
    url: str
    events: tuple[str, ...]
    active: bool
    disabled_reason: str | None
    created_at: datetime
    created_by: str | None
    ordered: bool = False
    previous_until: datetime | None = None
    failing_since: datetime | None = None

    def wants(self, event: str) -> bool:
        """Whether it asked for `event`: by its name, or by a pattern such as `course.*`."""
        return any(fnmatchcase(event, pattern) for pattern in self.events)


class WebhookStore(Records):
    """Endpoints and deliveries in SQL.

    Args:
        database: where they are.
        keyring: seals the endpoints' secrets.
        guard: checks addresses when they are registered, as far as that goes without looking them up.
        disabling: when an endpoint that fails is disabled, and who is told.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        guard: Guard | None = None,
        disabling: Disabling | None = None,
    ) -> None:
        super().__init__(database, disabling or Disabling())
        self.line = Line(database)
        self._keyring = keyring
        self._guard = guard or Guard()

    async def add(
        self,
        url: str,
        events: Sequence[str] = ("*",),
        created_by: str | None = None,
        *,
        ordered: bool = False,
    ) -> tuple[Endpoint, str]:
        """Register an address. Answers the endpoint and its secret, which is not shown again.

        Args:
            events: names, or patterns such as `course.*`.
            ordered: whether its events come one after the other: see `docs/webhooks.md`.

        Raises:
            AddressRefused: the address must not be called.
            DuplicateEndpoint: it is registered already.
            ValueError: no events.
        """
        endpoint = Endpoint(
            id=str(uuid.uuid4()),
            url=self.canonical(url),
            events=_names(events),
            active=True,
            disabled_reason=None,
            created_at=clock.now(),
            created_by=created_by,
            ordered=ordered,
        )
        secret = new_secret()
        row = {
            "id": endpoint.id,
            "url": endpoint.url,
            "events": list(endpoint.events),
            "active": True,
            "created_at": endpoint.created_at,
            "created_by": created_by,
            "ordered": ordered,
            "secrets": self._keyring.seal([secret], _context(endpoint.id)),
        }
        try:
            async with self._database.async_writing() as connection:
                await connection.execute(insert(endpoints).values(row))
        except IntegrityError as exc:
            raise DuplicateEndpoint(f"{endpoint.url} is registered already") from exc
        return endpoint, secret

    async def list(self) -> Sequence[Endpoint]:
        """Every endpoint, the oldest first."""
        return await self._endpoints()

    async def get(self, endpoint_id: str) -> Endpoint:
        """Raises:
        UnknownEndpoint: there is none with this id.
        """
        found = await self._endpoints(endpoints.c.id == endpoint_id)
        if not found:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")
        return found[0]

    async def by_url(self, url: str) -> Endpoint | None:
        """The endpoint at this address."""
        found = await self._endpoints(endpoints.c.url == self.canonical(url))
        return found[0] if found else None

    async def for_event(self, event: str, session: AsyncSession | None = None) -> Sequence[Endpoint]:
        """The active endpoints that want `event`; asked in the transaction of `session`, if there is one."""
        active = await self._endpoints(endpoints.c.active, session=session)
        return [endpoint for endpoint in active if endpoint.wants(event)]

    async def remove(self, endpoint_id: str) -> None:
        """Forget an endpoint. What was delivered stays on record.

        Raises:
            UnknownEndpoint: there is none with this id.
        """
        async with self._database.async_writing() as connection:
            done = await connection.execute(delete(endpoints).where(endpoints.c.id == endpoint_id))
        if not done.rowcount:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")

    async def change(
        self, endpoint_id: str, *, events: Sequence[str] | None = None, ordered: bool | None = None
    ) -> None:
        """Change which events it wants, or whether they come in order. None leaves a thing as it is.

        Raises:
            UnknownEndpoint: there is none with this id.
            ValueError: no events.
        """
        values: dict[str, Any] = {} if events is None else {"events": list(_names(events))}
        if ordered is not None:
            values["ordered"] = ordered
        if values:
            await self._change(endpoint_id, **values)

    async def disable(self, endpoint_id: str, reason: str) -> None:
        """Send nothing there any more, and say why."""
        await self._change(endpoint_id, active=False, disabled_reason=reason)

    async def enable(self, endpoint_id: str) -> None:
        """Send there again. What failed before is forgiven: failures are counted anew."""
        await self._change(endpoint_id, active=True, disabled_reason=None, failing_since=None, failures=None)

    async def secrets(self, endpoint_id: str) -> tuple[str, ...]:
        """The secrets that sign now, the newest first.

        Raises:
            UnknownEndpoint: there is none with this id.
        """
        found = await self.addressee_by_id(endpoint_id)
        if found is None:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")
        return found[1]

    async def addressee(self, url: str) -> tuple[Endpoint, tuple[str, ...]] | None:
        """The endpoint at this address, and the secrets that sign now."""
        return await self._with_secrets(endpoints.c.url == self.canonical(url))

    async def addressee_by_id(self, endpoint_id: str) -> tuple[Endpoint, tuple[str, ...]] | None:
        """The same for an endpoint's id."""
        return await self._with_secrets(endpoints.c.id == endpoint_id)

    async def rotate_secret(self, endpoint_id: str, *, previous_for: timedelta = timedelta(days=1)) -> str:
        """Make a new secret, which is not shown again.

        The one before goes on signing beside it, so that the receiver can change over at leisure; one that is
        older ends at once.

        Args:
            previous_for: how long it does; zero where it became known to others.

        Raises:
            UnknownEndpoint: there is none with this id.
            ValueError: less than zero.
        """
        if previous_for < timedelta(0):
            raise ValueError(f"previous_for={previous_for} must not be less than zero")
        secret = new_secret()
        async with self._database.async_writing() as connection:
            query = select(endpoints.c.secrets).where(endpoints.c.id == endpoint_id).with_for_update()
            sealed = await connection.scalar(query)
            if sealed is None:
                raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")
            previous = self._keyring.open(sealed, _context(endpoint_id))[:1] if previous_for else []
            await connection.execute(
                update(endpoints)
                .where(endpoints.c.id == endpoint_id)
                .values(
                    secrets=self._keyring.seal([secret, *previous], _context(endpoint_id)),
                    previous_until=clock.now() + previous_for if previous else None,
                )
            )
        return secret

    def canonical(self, url: str) -> str:
        """`url` as it is kept: host in lower case and ASCII, path escaped, no fragment.

        Raises:
            AddressRefused: the address must not be called.
        """
        return str(self._guard.parse(url).url)

    async def _endpoints(
        self, *where: ColumnElement[bool], session: AsyncSession | None = None
    ) -> Sequence[Endpoint]:
        query = select(*_COLUMNS).where(*where).order_by(endpoints.c.created_at, endpoints.c.id)
        if session is not None:
            return [_endpoint(row) for row in (await session.execute(query)).mappings()]
        async with self._database.async_reading() as connection:
            return [_endpoint(row) for row in (await connection.execute(query)).mappings()]

    async def _with_secrets(self, where: ColumnElement[bool]) -> tuple[Endpoint, tuple[str, ...]] | None:
        query = select(*_COLUMNS, endpoints.c.secrets).where(where)
        async with self._database.async_reading() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        if row is None:
            return None
        endpoint = _endpoint(row)
        newest, *previous = self._keyring.open(row["secrets"], _context(endpoint.id))
        over = endpoint.previous_until is not None and endpoint.previous_until <= clock.now()
        return endpoint, (newest,) if over else (newest, *previous)

    async def _change(self, endpoint_id: str, **values: Any) -> None:
        async with self._database.async_writing() as connection:
            done = await connection.execute(
                update(endpoints).where(endpoints.c.id == endpoint_id).values(values)
            )
        if not done.rowcount:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")


_COLUMNS = tuple(endpoints.c[name] for name in Endpoint.__dataclass_fields__)


def _endpoint(row: RowMapping) -> Endpoint:
    values = {name: row[name] for name in Endpoint.__dataclass_fields__}
    return Endpoint(**{**values, "events": tuple(row["events"]), "ordered": bool(row["ordered"])})


def _names(events: Sequence[str]) -> tuple[str, ...]:
    if not events or not all(events):
        raise ValueError('name the events that the endpoint wants, or ["*"] for all')
    return tuple(dict.fromkeys(events))


def _context(endpoint_id: str) -> str:
    return f"webhook-endpoint:{endpoint_id}"
