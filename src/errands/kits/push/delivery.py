"""From one notice to the devices of many users: what of it is still to be done, and doing it.

A user's row in `errands_notifications` says how far their push is. It is claimed before anything is sent, so
no two attempts or deliveries send it. What a dead attempt claimed is unknown, and not sent again: what it
says is in the user's box all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select, update

from errands import Database
from errands.kits.push.devices import WEBPUSH, Device, DeviceStore
from errands.kits.push.errors import DeviceGone, PushFailed, PushRefused, PushUnknown
from errands.kits.push.notice import Notice, PushMessage
from errands.kits.push.provider import Pusher
from errands.kits.push.tables import notifications
from errands.kits.push.webpush import WebPush

logger = logging.getLogger("errands.push")

SLICE = 50  # users whose pushes are claimed together: so many are unknown if a worker dies over them
_AT_ONCE = 20  # requests under way
_LONGEST_ERROR = 1000


class Push(StrEnum):
    """How far a user's push is. Of what became of several devices, the first of the last four is told."""

    BEGUN = "begun"  # claimed by an attempt; if that one has ended, nobody knows
    WAITING = "waiting"  # for another attempt
    PUSHED = "pushed"  # to one device at least
    UNKNOWN = "unknown"
    FAILED = "failed"
    GONE = "gone"  # all devices that there were


@dataclass(slots=True)
class Tally:
    """What one attempt left over: how many users wait for another, not before when, and why."""

    waiting: int = 0
    retry_after: float | None = None
    error: str = ""
    paused: set[str] = field(default_factory=set)  # services that asked for peace

    def failed(self, error: PushFailed, service: str) -> None:
        """A service did not take a message now."""
        self.error = str(error)
        if error.retry_after is not None:
            self.retry_after = max(self.retry_after or 0.0, error.retry_after)
        if error.pause:
            self.paused.add(service)


@dataclass(frozen=True, slots=True)
class Open:
    """One user's push that is yet to be done: to which devices, and what became of the others before."""

    devices: Sequence[Device]
    before: Push | None = None


@dataclass(slots=True)
class _Push:
    """One user's push, while it is under way. A device is in one of the lists once it is known what became of
    it."""

    notification: str
    before: Push | None
    left: list[Device]  # not begun, or to be tried again
    begun: int = 0
    reached: list[Device] = field(default_factory=list)
    gone: list[Device] = field(default_factory=list)
    refused: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def so_far(self) -> Push:
        """What became of the devices that are not left."""
        if self.reached or self.before is Push.PUSHED:
            return Push.PUSHED
        if self.begun > len(self.gone) + self.refused or self.before is Push.UNKNOWN:
            return Push.UNKNOWN
        return Push.FAILED if self.refused or self.before is Push.FAILED else Push.GONE

    @property
    def state(self) -> Push:
        """What is kept of it."""
        return Push.WAITING if self.left else self.so_far

    def row(self) -> dict[str, Any]:
        """The columns, for `_SETTLE`."""
        left = {"devices": [device.id for device in self.left], "before": self.so_far} if self.left else None
        error = "; ".join(dict.fromkeys(self.errors))[:_LONGEST_ERROR] or None
        return {"of": self.notification, "push": self.state, "push_left": left, "push_error": error}


class Delivery:
    """Sends pushes, and keeps what became of them.

    Args:
        database: where the notifications are.
        devices: whom they go to.
        pushers: one for each kind of device; devices of other kinds are left alone.
    """

    def __init__(
        self, database: Callable[[], Database], devices: DeviceStore, pushers: Sequence[Pusher]
    ) -> None:
        self._database = database
        self._devices = devices
        self._pushers = {pusher.kind: pusher for pusher in pushers}

    async def open(self, ids: Mapping[str, str]) -> dict[str, Open]:
        """Of up to a thousand users (with the ids of their notifications) those whose pushes are yet to be
        done."""
        if not self._pushers:
            return {}
        owned = await self._devices.of_many(list(ids))
        query = select(notifications.c.user_id, notifications.c.push_left).where(
            notifications.c.id.in_(list(ids.values())),
            or_(
                notifications.c.push == Push.WAITING,
                # Most users of a broadcast have no device: of these, not even the row is looked at.
                notifications.c.push.is_(None) & notifications.c.user_id.in_(list(owned)),
            ),
        )
        async with self._database().async_reading() as connection:
            rows = (await connection.execute(query)).all()
        found: dict[str, Open] = {}
        for user, left in rows:
            devices = [device for device in owned.get(user, ()) if device.kind in self._pushers]
            if left is not None:  # some were dealt with; of the others, some may be gone by now
                devices = [device for device in devices if device.id in left["devices"]]
                found[user] = Open(devices, Push(left["before"]))
            elif devices:
                found[user] = Open(devices)
        return found

    async def send(
        self, notice: Notice, ids: Mapping[str, str], users: Mapping[str, Open], tally: Tally
    ) -> None:
        """Make one attempt for each of these users.

        Args:
            notice: what is told.
            ids: of the users' notifications.
            users: as `open` told.
            tally: what is left over is added to it.
        """
        names = list(users)
        for start in range(0, len(names), SLICE):
            chunk = names[start : start + SLICE]
            claimed = await self._write(_claim, [ids[user] for user in chunk])
            pushes = [
                _Push(ids[user], users[user].before, list(users[user].devices))
                for user in chunk
                if ids[user] in claimed
            ]
            try:
                await self._send(notice, pushes, tally)
            finally:
                # Also where a time limit ends the attempt: what was sent is not to be sent again.
                await asyncio.shield(self._settle(pushes))
            tally.waiting += sum(push.state is Push.WAITING for push in pushes)

    async def counts(self, ids: Sequence[str]) -> tuple[Counter[str], str | None]:
        """What became of the pushes of up to a thousand notifications; and of one that failed, why."""
        query = (
            select(notifications.c.push, func.count(), func.max(notifications.c.push_error))
            .where(notifications.c.id.in_(ids), notifications.c.push.is_not(None))
            .group_by(notifications.c.push)
        )
        async with self._database().async_reading() as connection:
            rows = (await connection.execute(query)).all()
        why = next((error for push, _, error in rows if push == Push.FAILED), None)
        return Counter({push: count for push, count, _ in rows}), why

    @property
    def public_key(self) -> str | None:
        """What browsers subscribe with; None where Web Push is not set up."""
        pusher = self._pushers.get(WEBPUSH)
        return pusher.vapid.public_key if isinstance(pusher, WebPush) else None

    async def aclose(self) -> None:
        """Give the pushers' connections back."""
        for pusher in self._pushers.values():
            await pusher.aclose()

    async def _send(self, notice: Notice, pushes: Sequence[_Push], tally: Tally) -> None:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(push: _Push, device: Device) -> None:
            async with gate:
                await self._try(push, device, PushMessage.of(notice, push.notification), tally)

        try:
            async with asyncio.TaskGroup() as group:
                for push in pushes:
                    for device in tuple(push.left):
                        group.create_task(one(push, device))
        except ExceptionGroup as found:
            raise found.exceptions[0] from None

    async def _try(self, push: _Push, device: Device, message: PushMessage, tally: Tally) -> None:
        pusher = self._pushers[device.kind]
        service = pusher.service(device)
        if service in tally.paused:
            push.errors.append(tally.error)
            return
        push.left.remove(device)
        push.begun += 1
        try:
            await pusher.send(device, message)
        except PushFailed as exc:
            push.begun -= 1
            push.left.append(device)
            push.errors.append(str(exc))
            tally.failed(exc, service)
        except DeviceGone as exc:
            logger.info("a device of user %s is removed: %s", device.user_id, exc)
            push.gone.append(device)
        except PushRefused as exc:
            push.refused += 1
            push.errors.append(str(exc))
        except PushUnknown as exc:
            push.errors.append(str(exc))
        else:
            push.reached.append(device)

    async def _settle(self, pushes: Sequence[_Push]) -> None:
        if not pushes:
            return
        await self._write(_put, [push.row() for push in pushes])
        await self._devices.note(
            [device for push in pushes for device in push.reached],
            [device for push in pushes for device in push.gone],
        )

    async def _write(self, function: Callable[[Connection, Any], Any], argument: Any) -> Any:
        async with self._database().async_writing() as connection:
            return await connection.run_sync(function, argument)


def _is_open() -> ColumnElement[bool]:
    return or_(notifications.c.push.is_(None), notifications.c.push == Push.WAITING)


def _claim(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Take these pushes, as far as nobody else has. Returns which."""
    mine = update(notifications).where(notifications.c.id.in_(ids), _is_open())
    return set(connection.scalars(mine.values(push=Push.BEGUN).returning(notifications.c.id)))


def _put(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    connection.execute(_SETTLE, [dict(row) for row in rows])


_SETTLE = (
    update(notifications)
    .where(notifications.c.id == bindparam("of"))
    .values({name: bindparam(name) for name in ("push", "push_left", "push_error")})
)
