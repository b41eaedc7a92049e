"""Users' devices: where a push goes. Addresses are personal data, and sealed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from errands import Database, Keyring
from errands.core import clock
from errands.kits.push.audience import UserId
from errands.kits.push.errors import DeviceNotFound, InvalidDevice
from errands.kits.push.tables import devices

WEBPUSH, FCM = "webpush", "fcm"
MOST = 20  # devices of one user: who signs in everywhere, and never out
_LONGEST = 4096
_NOTED_EVERY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Device:
    """Where a push goes. `address` is what its provider needs: `{"token"}`, or `{"endpoint", "keys"}`."""

    id: str
    user_id: str
    kind: str
    address: Mapping[str, Any] = field(repr=False)
    created_at: datetime
    last_ok_at: datetime | None = None


class DeviceStore:
    """The devices of all users, in SQL.

    Args:
        database: gives the database when it is first needed.
        keyring: seals addresses.
        check_url: refuses the address of a push service that must not be called, by an exception.
    """

    def __init__(
        self,
        database: Callable[[], Database],
        keyring: Keyring,
        check_url: Callable[[str], object] = lambda url: None,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._check_url = check_url

    async def add_web_push(self, user: UserId, subscription: Mapping[str, Any]) -> Device:
        """Keep a browser's subscription, as its `PushSubscription.toJSON()` gives it.

        One that is there already moves to this user: whoever is signed in at a browser now gets what it is
        told. Of more than 20 devices of one user the oldest is forgotten.

        Raises:
            InvalidDevice: it is no subscription that anything could be sent to.
        """
        address = subscription_address(subscription)
        try:
            self._check_url(address["endpoint"])
        except ValueError as exc:
            raise InvalidDevice(f"the subscription's endpoint is not called: {exc}") from exc
        return await self.add(user, WEBPUSH, address, address["endpoint"])

    async def add_fcm(self, user: UserId, token: str) -> Device:
        """Keep an app's registration token, as Firebase gives it to the app.

        Raises:
            InvalidDevice: it is no token.
        """
        if not isinstance(token, str) or not 20 <= len(token) <= _LONGEST or not token.isascii():
            raise InvalidDevice("this is no FCM registration token")
        if not token.isprintable() or " " in token:
            raise InvalidDevice("this is no FCM registration token")
        return await self.add(user, FCM, {"token": token}, token)

    async def add(self, user: UserId, kind: str, address: Mapping[str, Any], identity: str) -> Device:
        """Keep a device of any kind; `identity` is the text by which it is known again."""
        digest = hashlib.sha256(identity.encode()).hexdigest()
        async with self._database().async_writing() as connection:
            return await connection.run_sync(self._add, str(user), kind, address, digest)

    async def of(self, user: UserId) -> Sequence[Device]:
        """A user's devices, the newest first."""
        return (await self.of_many([str(user)])).get(str(user), [])

    async def of_many(self, users: Sequence[str]) -> dict[str, list[Device]]:
        """The devices of those of up to a thousand users who have any."""
        query = select(*_COLUMNS).where(devices.c.user_id.in_(users))
        async with self._database().async_reading() as connection:
            rows = (await connection.execute(query.order_by(devices.c.created_at.desc()))).mappings().all()
        found: dict[str, list[Device]] = defaultdict(list)
        for row in rows:
            address = self._keyring.open(row["address"], _context(row["id"]))
            found[row["user_id"]].append(Device(**{**row, "address": address}))
        return dict(found)

    async def remove(self, user: UserId, device: str) -> None:
        """Forget one of a user's devices.

        Raises:
            DeviceNotFound: the user has no such device.
        """
        query = delete(devices).where(devices.c.id == device, devices.c.user_id == str(user))
        async with self._database().async_writing() as connection:
            if not (await connection.execute(query)).rowcount:
                raise DeviceNotFound(f"no device {device[:64]!r}")

    async def note(self, reached: Sequence[Device], gone: Sequence[Device]) -> None:
        """Note which devices took a message, and forget those that are gone."""
        now = clock.now()
        stale = or_(devices.c.last_ok_at.is_(None), devices.c.last_ok_at < now - _NOTED_EVERY)
        old = [device.id for device in reached if _is_old(device, now)]
        if not old and not gone:
            return
        async with self._database().async_writing() as connection:
            if old:
                mine = devices.c.id.in_(old)
                await connection.execute(update(devices).where(mine, stale).values(last_ok_at=now))
            if gone:
                # Only as it was when it was tried: it may be registered anew.
                await connection.execute(delete(devices).where(devices.c.id.in_([d.id for d in gone])))

    def _add(
        self, connection: Connection, user: str, kind: str, address: Mapping[str, Any], digest: str
    ) -> Device:
        now, new = clock.now(), str(uuid.uuid4())
        dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
        row = {
            "id": new, "user_id": user, "kind": kind, "digest": digest, "created_at": now,
            "address": self._keyring.seal(dict(address), _context(new)),
        }  # fmt: skip
        statement = dialect.insert(devices).values(row)
        # A new id for an old address: a push that is under way to its last user does not remove it.
        renewed = {name: row[name] for name in ("id", "user_id", "address", "created_at")}
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["kind", "digest"], set_={**renewed, "last_ok_at": None}
            )
        )
        mine = select(devices.c.id).where(devices.c.user_id == user)
        surplus = mine.order_by(devices.c.created_at.desc(), devices.c.id != new).offset(MOST).limit(1000)
        ids = connection.scalars(surplus).all()
        if ids:
            connection.execute(delete(devices).where(devices.c.id.in_(ids)))
        return Device(new, user, kind, address, now)


def erase(connection: Connection, user: str) -> int:
    """Forget all of a user's devices. Returns how many."""
    return connection.execute(delete(devices).where(devices.c.user_id == user)).rowcount


def subscription_address(subscription: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a browser's subscription: its endpoint and keys (RFC 8291, section 2).

    Raises:
        InvalidDevice: something is missing, or is not what a browser makes.
    """
    keys = subscription.get("keys") if isinstance(subscription, Mapping) else None
    endpoint = subscription.get("endpoint") if isinstance(subscription, Mapping) else None
    if not isinstance(endpoint, str) or not isinstance(keys, Mapping):
        raise InvalidDevice("a Web Push subscription has an endpoint, and keys with p256dh and auth")
    if len(json.dumps([endpoint, dict(keys)], default=str)) > _LONGEST:
        raise InvalidDevice("no browser makes a subscription of this size")
    point, auth = _bytes(keys.get("p256dh")), _bytes(keys.get("auth"))
    if len(auth) != 16:
        raise InvalidDevice("the subscription's key auth has 16 bytes, in base64url")
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError as exc:
        raise InvalidDevice("the subscription's key p256dh is no point on P-256, in base64url") from exc
    return {"endpoint": endpoint, "keys": {"p256dh": _text(point), "auth": _text(auth)}}


_COLUMNS = tuple(devices.c[name] for name in Device.__dataclass_fields__)


def _is_old(device: Device, now: datetime) -> bool:
    return device.last_ok_at is None or device.last_ok_at < now - _NOTED_EVERY


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        return b""
    plain = text.replace("+", "-").replace("/", "_").rstrip("=")
    try:
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return b""


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _context(device_id: str) -> str:
    return f"push-device:{device_id}"
