"""Who wants which webhooks, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from errands import Database, Keyring
from errands.core import clock
from errands.kits.webhooks.addresses import Guard
from errands.kits.webhooks.errors import DuplicateEndpoint, UnknownEndpoint
from errands.kits.webhooks.signing import new_secret
from errands.kits.webhooks.tables import deliveries, endpoints


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that wants events. Its secrets are not part of it: see `WebhookStore.secrets`."""

    id: str
    url: str
    events: tuple[str, ...]
    active: bool
    disabled_reason: str | None
    created_at: datetime
    created_by: str | None

    def wants(self, event: str) -> bool:
        """Whether it asked for `event`: by its name, or by a pattern such as `course.*`."""
        return any(fnmatchcase(event, pattern) for pattern in self.events)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to deliver. `next_try_at` is about when the next one comes, None if none follows."""

    run_id: str
    event: str
    url: str
    attempt: int
    status_code: int | None
    error: str | None
    duration_ms: int
    at: datetime
    endpoint_id: str | None = None
    next_try_at: datetime | None = None
    delivered_at: datetime | None = None


class WebhookStore:
    """Endpoints and deliveries in SQL.

    Args:
        database: where they are.
        keyring: seals the endpoints' secrets.
        guard: checks addresses when they are registered, as far as that goes without looking them up.
    """

    def __init__(self, database: Database, keyring: Keyring, guard: Guard | None = None) -> None:
        self._database = database
        self._keyring = keyring
        self._guard = guard or Guard()

    async def add(
        self, url: str, events: Sequence[str] = ("*",), created_by: str | None = None
    ) -> tuple[Endpoint, str]:
        """Register an address. Answers the endpoint and its secret, which is not shown again.

        Raises:
            AddressRefused: the address must not be called.
            DuplicateEndpoint: it is registered already.
            ValueError: no events.
        """
        if not events or not all(events):
            raise ValueError('name the events that the endpoint wants, or ["*"] for all')
        endpoint = Endpoint(
            id=str(uuid.uuid4()),
            url=self.canonical(url),
            events=tuple(dict.fromkeys(events)),
            active=True,
            disabled_reason=None,
            created_at=clock.now(),
            created_by=created_by,
        )
        secret = new_secret()
        row = {
            "id": endpoint.id,
            "url": endpoint.url,
            "events": list(endpoint.events),
            "active": True,
            "created_at": endpoint.created_at,
            "created_by": created_by,
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

    async def for_event(self, event: str) -> Sequence[Endpoint]:
        """The active endpoints that want `event`."""
        active = await self._endpoints(endpoints.c.active)
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

    async def disable(self, endpoint_id: str, reason: str) -> None:
        """Send nothing there any more, and say why."""
        await self._change(endpoint_id, active=False, disabled_reason=reason)

    async def enable(self, endpoint_id: str) -> None:
        """Send there again."""
        await self._change(endpoint_id, active=True, disabled_reason=None)

    async def secrets(self, endpoint_id: str) -> tuple[str, ...]:
        """The secrets that sign, the newest first."""
        async with self._database.async_reading() as connection:
            sealed = await connection.scalar(select(endpoints.c.secrets).where(endpoints.c.id == endpoint_id))
        if sealed is None:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")
        return tuple(self._keyring.open(sealed, _context(endpoint_id)))

    async def rotate_secret(self, endpoint_id: str, *, keep_previous: bool = True) -> str:
        """Make a new secret, which is not shown again. The one before goes on signing beside it until the
        next rotation, so that the receiver can change over at leisure; unless it became known to others.

        Raises:
            UnknownEndpoint: there is none with this id.
        """
        secret = new_secret()
        async with self._database.async_writing() as connection:
            query = select(endpoints.c.secrets).where(endpoints.c.id == endpoint_id).with_for_update()
            sealed = await connection.scalar(query)
            if sealed is None:
                raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")
            previous = self._keyring.open(sealed, _context(endpoint_id))[:1] if keep_previous else []
            await connection.execute(
                update(endpoints)
                .where(endpoints.c.id == endpoint_id)
                .values(secrets=self._keyring.seal([secret, *previous], _context(endpoint_id)))
            )
        return secret

    async def record(self, delivery: Delivery) -> None:
        """Keep what became of one attempt."""
        row = {name: getattr(delivery, name) for name in Delivery.__dataclass_fields__}
        async with self._database.async_writing() as connection:
            await connection.execute(insert(deliveries).values(id=str(uuid.uuid4()), **row))

    async def deliveries(self, endpoint_id: str, *, limit: int = 100) -> Sequence[Delivery]:
        """The latest attempts at one endpoint, the newest first."""
        query = (
            select(*(deliveries.c[name] for name in Delivery.__dataclass_fields__))
            .where(deliveries.c.endpoint_id == endpoint_id)
            .order_by(deliveries.c.at.desc(), deliveries.c.attempt.desc())
            .limit(limit)
        )
        async with self._database.async_reading() as connection:
            return [Delivery(**row) for row in (await connection.execute(query)).mappings()]

    async def prune(self, before: datetime) -> int:
        """Forget the attempts made before that moment; answers how many."""
        async with self._database.async_writing() as connection:
            return (await connection.execute(delete(deliveries).where(deliveries.c.at < before))).rowcount

    def canonical(self, url: str) -> str:
        """`url` as it is kept: host in lower case and ASCII, path escaped, no fragment.

        Raises:
            AddressRefused: the address must not be called.
        """
        return str(self._guard.parse(url).url)

    async def _endpoints(self, *where: ColumnElement[bool]) -> Sequence[Endpoint]:
        columns = (endpoints.c[name] for name in Endpoint.__dataclass_fields__)
        query = select(*columns).where(*where).order_by(endpoints.c.created_at, endpoints.c.id)
        async with self._database.async_reading() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Endpoint(**{**row, "events": tuple(row["events"])}) for row in rows]

    async def _change(self, endpoint_id: str, **values: Any) -> None:
        async with self._database.async_writing() as connection:
            done = await connection.execute(
                update(endpoints).where(endpoints.c.id == endpoint_id).values(values)
            )
        if not done.rowcount:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")


def _context(endpoint_id: str) -> str:
    return f"webhook-endpoint:{endpoint_id}"
