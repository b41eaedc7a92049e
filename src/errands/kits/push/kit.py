"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from errands import ConfigurationError, Retry
from errands.fetching import Guard
from errands.kits.push import boxes, devices, tasks
from errands.kits.push.audience import Audience
from errands.kits.push.delivery import Delivery
from errands.kits.push.devices import DeviceStore
from errands.kits.push.fcm import FcmPush
from errands.kits.push.feed import Feed
from errands.kits.push.notifier import Notifier
from errands.kits.push.provider import Pusher
from errands.kits.push.quiet import QuietHours, QuietHoursOf
from errands.kits.push.store import NotificationStore
from errands.kits.push.vapid import VapidKey
from errands.kits.push.webpush import WebPush

if TYPE_CHECKING:
    from errands import Errands, Settings

# A quota of Google's is by the minute; a service that is down may be so for an hour.
RETRY = Retry(6, first=60, most=3600)


class PushKit:
    """See `kit`."""

    def __init__(
        self,
        pushers: Callable[[], Sequence[Pusher]] | None,
        audience: Callable[[], Audience] | None,
        quiet_hours_of: QuietHoursOf | None,
        declare: bool,
        queue: str,
        retry: Retry,
    ) -> None:
        self._pushers = pushers
        self._audience = audience
        self._quiet_hours_of = quiet_hours_of
        self._declare = declare
        self._queue = queue
        self._retry = retry

    def install(self, app: Errands) -> None:
        """Provide `Notifier`, `NotificationStore`, `DeviceStore`, `Feed` (and `Audience`), erase people's
        notifications and devices with them, and declare the tasks.

        Raises:
            ConfigurationError: a setting cannot be used; the text names it.
        """
        settings, make = app.settings, self._pushers
        guard = _guard(settings)
        quiet = QuietHours(settings.quiet_hours, settings.time_zone) if settings.quiet_hours else None
        if make is None:
            check(settings)
        if (make is not None or _is_set_up(settings)) and not app.keyring:
            raise ConfigurationError(
                "the addresses of devices are sealed, and there is no key: set ERRANDS_SECRET_KEYS "
                "(make one with `python -m errands keys new`)"
            )

        def notifier() -> Notifier:
            own, instance = (
                make() if make is not None else pushers_from(settings, guard),
                app.resources.instance,
            )
            delivery = Delivery(lambda: app.database, instance(DeviceStore), own)
            return Notifier(
                instance(NotificationStore), instance(DeviceStore), instance(Feed), delivery, quiet=quiet,
                quiet_of=self._quiet_hours_of,
            )  # fmt: skip

        def device_store() -> DeviceStore:
            return DeviceStore(lambda: app.database, app.keyring, guard.parse)

        app.provide(NotificationStore, lambda: NotificationStore(lambda: app.database), scope="process")
        app.provide(DeviceStore, device_store, scope="process")
        app.provide(Feed, lambda: Feed(app, app.resources.instance(NotificationStore)), scope="process")
        app.provide(Notifier, notifier, scope="process")
        if self._audience is not None:
            app.provide(Audience, self._audience, scope="process")
        if self._declare:
            tasks.register(app, self._queue, self._retry, broadcast=self._audience is not None)

        @app.on_erase
        def erase_notifications(person: str, _runs: list[str]) -> int:
            with app.database.writing() as connection:
                return boxes.erase(connection, person) + devices.erase(connection, person)

        erase_notifications.__qualname__ = "erase_notifications"  # what an erasure's answer calls it


def kit(
    pushers: Callable[[], Sequence[Pusher]] | None = None,
    *,
    audience: Callable[[], Audience] | None = None,
    quiet_hours_of: QuietHoursOf | None = None,
    tasks: bool = False,
    queue: str = "notifications",
    retry: Retry = RETRY,
) -> PushKit:
    """Notifications for an app: `app.use(push.kit(tasks=True))`.

    Args:
        pushers: makes what carries them to devices, once a process; by default by the settings: Web Push
            where there is a VAPID key, FCM where there is a service account, else none. Tests give
            `lambda: [fake]`.
        audience: makes what tells who all are, for broadcasts.
        quiet_hours_of: asked for users who have quiet hours of their own, in place of ERRANDS_QUIET_HOURS.
        tasks: declare `send_push_notification`, `send_push_notifications`, `send_bulk_notifications`, and
            with an audience `send_broadcast_push_notification`.
        queue: where their messages wait.
        retry: when pushes that a service did not take are tried again.
    """
    return PushKit(pushers, audience, quiet_hours_of, tasks, queue, retry)


def pushers_from(settings: Settings, guard: Guard | None = None) -> list[Pusher]:
    """The pushers that the settings ask for."""
    found: list[Pusher] = []
    vapid = _vapid(settings)
    if vapid is not None:
        found.append(WebPush(vapid, guard or _guard(settings)))
    if settings.fcm_credentials is not None:
        found.append(FcmPush.from_file(settings.fcm_credentials, project=settings.fcm_project))
    return found


def check(settings: Settings) -> None:
    """Refuse at start what would fail with every push."""
    _vapid(settings)
    path = settings.fcm_credentials
    if path is not None and not path.is_file():
        raise ConfigurationError(f"ERRANDS_FCM_CREDENTIALS: there is no file {path}")


def _is_set_up(settings: Settings) -> bool:
    return settings.vapid_private_key is not None or settings.fcm_credentials is not None


def _vapid(settings: Settings) -> VapidKey | None:
    if settings.vapid_private_key is None:
        return None
    return VapidKey(settings.vapid_private_key.get_secret_value(), settings.vapid_subject or "")


def _guard(settings: Settings) -> Guard:
    try:
        return Guard(settings.fetch_allow)
    except ValueError as exc:
        raise ConfigurationError(f"ERRANDS_FETCH_ALLOW: {exc}") from exc
