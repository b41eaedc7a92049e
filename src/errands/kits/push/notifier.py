"""Telling users something: into their boxes at once, to their devices when they may be disturbed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from errands import Run, Snooze
from errands.core import clock
from errands.kits.push.audience import UserId
from errands.kits.push.boxes import CHUNK
from errands.kits.push.delivery import Delivery, Open, Push, Tally
from errands.kits.push.devices import DeviceStore
from errands.kits.push.errors import PushFailed, PushRefused
from errands.kits.push.feed import Feed
from errands.kits.push.notice import Notice
from errands.kits.push.quiet import QuietHours, QuietHoursOf
from errands.kits.push.store import NotificationStore


@dataclass(slots=True)
class Outcome:
    """What became of one notice.

    Attributes:
        notified: users in whose boxes it is.
        skipped: users who turned its kind off.
        pushed, failed, unknown: users with devices, by what became of their push: it reached one device at
            least; none; nobody can say.
        held: users whose quiet hours hold it back; `held_until` is when the first of these are over.
        why_failed: of one that failed.
        tally: what waits for another attempt.
    """

    notified: int = 0
    skipped: int = 0
    pushed: int = 0
    failed: int = 0
    unknown: int = 0
    held: int = 0
    held_until: datetime | None = None
    why_failed: str = ""
    tally: Tally = field(default_factory=Tally)

    def counts(self) -> dict[str, int]:
        """For a task's result."""
        names = ("notified", "skipped", "pushed", "failed", "unknown")
        return {name: getattr(self, name) for name in names}


class Notifier:
    """Tells users something. Ask for it in a task's signature: `*, notifier: Notifier, run: Run`.

    Args:
        store: the boxes.
        devices: the devices.
        feed: hears of what is new in the boxes.
        delivery: sends to devices.
        quiet: the installation's quiet hours; None for none.
        quiet_of: asked for the users that have their own.
    """

    def __init__(
        self, store: NotificationStore, devices: DeviceStore, feed: Feed, delivery: Delivery, *,
        quiet: QuietHours | None = None, quiet_of: QuietHoursOf | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.devices = devices
        self.feed = feed
        self._delivery = delivery
        self._quiet = quiet
        self._quiet_of = quiet_of

    async def send(
        self, run: Run, users: Iterable[UserId], notice: Notice, *, source: str | None = None,
        push: bool = True, last: bool = False,
    ) -> dict[str, int]:  # fmt: skip
        """Tell users once, however often the run is tried or delivered, and tell the run how far it is.

        Args:
            run: whose notice it is.
            users: to be told; each once.
            notice: what they are told.
            source: what the notice is about, once for each user; by default the run. Runs that share a source
                do not tell a user twice.
            push: to their devices as well; else only into their boxes.
            last: no attempt of the run follows a failure: what is held back is waited for first.

        Returns:
            notified, skipped, pushed, failed, unknown: see `Outcome`.

        Raises:
            PushFailed: some pushes wait for another attempt: the run's next one, or a person's.
            Snooze: some are held back by quiet hours. The run comes again when the first of these are over.
            PushRefused: not one was reached of those who have devices.
        """
        wanted = unique(users)
        outcome = Outcome()
        for chunk in _chunks(wanted, CHUNK):
            run.check()
            await self.tell(chunk, notice, source or run.id, push=push, outcome=outcome)
            run.progress(outcome.notified + outcome.skipped, len(wanted))
        left = outcome.tally
        if left.waiting and not (last and outcome.held_until):
            raise PushFailed(
                f"{left.waiting} of {len(wanted)} users are not reached yet: {left.error}",
                retry_after=left.retry_after,
            )
        if outcome.held_until is not None:
            wait = max(outcome.held_until.timestamp() - clock.timestamp(), 1.0)
            raise Snooze(wait, f"quiet hours of {outcome.held} users, until {outcome.held_until:%H:%M} UTC")
        if outcome.failed and not outcome.pushed and not outcome.unknown:
            raise PushRefused(f"no device of {outcome.failed} users was reached: {outcome.why_failed}")
        return outcome.counts()

    async def tell(
        self, users: Sequence[str], notice: Notice, source: str, *, push: bool = True,
        outcome: Outcome | None = None,
    ) -> Outcome:  # fmt: skip
        """Tell up to a thousand users, outside of a run or within one. What waits or is held back is for the
        caller to come back to, with the same `source`.

        Args:
            users: ids, each once.
            notice, source, push: as `send`.
            outcome: is added to; by default a new one.
        """
        outcome = outcome or Outcome()
        added = await self.store.add(notice, users, source)
        outcome.notified += len(added.ids)
        outcome.skipped += added.muted
        # Also of those that were there before: an attempt that died may not have said so.
        await self.feed.tell(list(added.ids))
        if push:
            await self._push(notice, dict(added.ids), outcome)
        return outcome

    @property
    def public_key(self) -> str | None:
        """What browsers subscribe with; None where Web Push is not set up."""
        return self._delivery.public_key

    async def aclose(self) -> None:
        """Give the pushers' connections back."""
        await self._delivery.aclose()

    async def _push(self, notice: Notice, ids: dict[str, str], outcome: Outcome) -> None:
        users = await self._delivery.open(ids)
        if not notice.urgent:
            users = await self._undisturbed(users, outcome)
        await self._delivery.send(notice, ids, users, outcome.tally)
        counts, why_failed = await self._delivery.counts(list(ids.values()))
        outcome.pushed += counts[Push.PUSHED]
        outcome.failed += counts[Push.FAILED]
        outcome.unknown += counts[Push.UNKNOWN] + counts[Push.BEGUN]
        outcome.why_failed = why_failed or outcome.why_failed

    async def _undisturbed(self, users: dict[str, Open], outcome: Outcome) -> dict[str, Open]:
        """Those who may be disturbed now. The others are noted in the outcome."""
        if not users or (self._quiet is None and self._quiet_of is None):
            return users
        own = await self._quiet_of(list(users)) if self._quiet_of is not None else {}
        now = clock.now()
        free: dict[str, Open] = {}
        for user, push in users.items():
            hours = own.get(user, self._quiet)
            until = hours.end(now) if hours is not None else None
            if until is None:
                free[user] = push
                continue
            outcome.held += 1
            outcome.held_until = min(until, outcome.held_until or until)
        return free


def unique(users: Iterable[UserId]) -> list[str]:
    """Ids as texts, each once."""
    return list(dict.fromkeys(str(user) for user in users))


def _chunks(users: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(users), size):
        yield users[start : start + size]
