"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from errands import ConfigurationError, Retry
from errands.fetching import Guard
from errands.kits.webhooks import outcome, signing, tasks
from errands.kits.webhooks.actions import Webhooks
from errands.kits.webhooks.delivery import Options
from errands.kits.webhooks.errors import InvalidSecret
from errands.kits.webhooks.provider import HttpSender, Sender
from errands.kits.webhooks.records import Disabling
from errands.kits.webhooks.store import WebhookStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from errands import Errands

_SCHEDULES = {"short": outcome.SHORT, "standard": outcome.STANDARD}


class WebhooksKit:
    """See `kit`."""

    def __init__(
        self,
        sender: Callable[[], Sender] | None,
        schedule: Literal["short", "standard"] | Retry,
        allow_http: bool,
        disable_after: timedelta | None,
        on_disabled: str | None,
    ) -> None:
        if disable_after is not None and disable_after <= timedelta(0):
            raise ConfigurationError(
                f"webhooks: disable_after={disable_after} must be above zero; None never disables"
            )
        if isinstance(schedule, str) and schedule not in _SCHEDULES:
            raise ConfigurationError(f'webhooks: schedule {schedule!r} is not "short", "standard" or a Retry')
        self._sender = sender
        self._retry = _SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        self._allow_http = allow_http
        self._disable_after = disable_after
        self._on_disabled = on_disabled

    def install(self, app: Errands) -> None:
        """Provide `WebhookStore`, `Sender` and `Webhooks`, and declare the tasks.

        Raises:
            ConfigurationError: ERRANDS_WEBHOOK_ALLOW or WEBHOOK_SECRET cannot be used.
        """
        settings = app.settings
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None

        def guard() -> Guard:
            allowed = app.settings.webhook_allow
            return Guard(allowed, allow_http=self._allow_http, setting="ERRANDS_WEBHOOK_ALLOW")

        try:
            guard()
            if secret:
                signing.key_of(secret)
        except InvalidSecret as exc:
            raise ConfigurationError(f"WEBHOOK_SECRET: {exc}") from exc
        except ValueError as exc:
            raise ConfigurationError(f"ERRANDS_WEBHOOK_ALLOW: {exc}") from exc

        tell = self._notice(app) if self._on_disabled else None
        disabling = Disabling(self._disable_after, tell)

        def store() -> WebhookStore:
            return WebhookStore(app.database, app.keyring, guard(), disabling)

        options = Options(self._retry, settings.webhook_url, secret or None)
        app.provide(WebhookStore, store, scope="process")
        app.provide(Sender, self._sender or (lambda: HttpSender(guard())), scope="process")
        app.provide(Webhooks, lambda: Webhooks(app, options), scope="process")
        tasks.register(app, options)

        @app.on_erase
        def forget(_person: str, run_ids: list[str]) -> int:
            return app.resources.instance(WebhookStore).forget_bodies(run_ids)

    def _notice(self, app: Errands) -> Callable[[AsyncSession, str, str, str], object]:
        name = str(self._on_disabled)

        def tell(session: AsyncSession, endpoint_id: str, url: str, reason: str) -> None:
            if name not in app.tasks:
                raise ConfigurationError(f"webhooks: on_disabled={name!r}: there is no such task")
            # With the commit: an endpoint is not disabled without its notice, nor the other way round.
            app.tasks[name].apply_on_commit(session, (endpoint_id, url, reason))

        return tell


def kit(
    sender: Callable[[], Sender] | None = None,
    *,
    schedule: Literal["short", "standard"] | Retry = "short",
    allow_http: bool = False,
    disable_after: timedelta | None = timedelta(days=5),
    on_disabled: str | None = None,
) -> WebhooksKit:
    """Webhooks for an app: `app.use(webhooks.kit())`.

    Args:
        sender: makes what carries them, once a process; by default `HttpSender`. Tests give `FakeSender`.
        schedule: "short" tries again 3 times from 30 s on; "standard" 9 times over three days, as the
            Standard Webhooks specification proposes; or a `Retry` of your own.
        allow_http: call public addresses without TLS too.
        disable_after: how long nothing may have been delivered to an endpoint, in ten attempts or more,
            before it is disabled; None: never. One that answers 410 is disabled at once.
        on_disabled: name of a task of yours that is sent when an endpoint was disabled so, with its id, its
            address and the reason: `def tell_admins(endpoint_id: str, url: str, reason: str)`.

    Raises:
        ConfigurationError: the schedule is not known, or a time is not above zero.
    """
    return WebhooksKit(sender, schedule, allow_http, disable_after, on_disabled)
