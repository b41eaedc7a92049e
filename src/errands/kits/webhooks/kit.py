"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from errands import ConfigurationError, Retry
from errands.kits.webhooks import outcome, signing, tasks
from errands.kits.webhooks.addresses import Guard
from errands.kits.webhooks.delivery import Options
from errands.kits.webhooks.errors import InvalidSecret
from errands.kits.webhooks.provider import HttpSender, Sender
from errands.kits.webhooks.store import WebhookStore

if TYPE_CHECKING:
    from errands import Errands

_SCHEDULES = {"short": outcome.SHORT, "standard": outcome.STANDARD}


class WebhooksKit:
    """See `kit`."""

    def __init__(
        self,
        sender: Callable[[], Sender] | None,
        schedule: Literal["short", "standard"] | Retry,
        allow_http: bool,
    ) -> None:
        if isinstance(schedule, str) and schedule not in _SCHEDULES:
            raise ConfigurationError(f'webhooks: schedule {schedule!r} is not "short", "standard" or a Retry')
        self._sender = sender
        self._retry = _SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        self._allow_http = allow_http

    def install(self, app: Errands) -> None:
        """Provide `WebhookStore` and `Sender`, and declare the tasks.

        Raises:
            ConfigurationError: ERRANDS_WEBHOOK_ALLOW or WEBHOOK_SECRET cannot be used.
        """
        settings = app.settings
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else None
        try:
            guard = Guard(settings.webhook_allow, allow_http=self._allow_http)
            if secret:
                signing.key_of(secret)
        except InvalidSecret as exc:
            raise ConfigurationError(f"WEBHOOK_SECRET: {exc}") from exc
        except ValueError as exc:
            raise ConfigurationError(f"ERRANDS_WEBHOOK_ALLOW: {exc}") from exc

        def store() -> WebhookStore:
            return WebhookStore(app.database, app.keyring, guard)

        app.provide(WebhookStore, store, scope="process")
        app.provide(Sender, self._sender or (lambda: HttpSender(guard)), scope="process")
        tasks.register(app, Options(self._retry, settings.webhook_url, secret or None))


def kit(
    sender: Callable[[], Sender] | None = None,
    *,
    schedule: Literal["short", "standard"] | Retry = "short",
    allow_http: bool = False,
) -> WebhooksKit:
    """Webhooks for an app: `app.use(webhooks.kit())`.

    Args:
        sender: makes what carries them, once a process; by default `HttpSender`. Tests give `FakeSender`.
        schedule: "short" tries again 3 times from 30 s on; "standard" 9 times over three days, as the
            Standard Webhooks specification proposes; or a `Retry` of your own.
        allow_http: call public addresses without TLS too.

    Raises:
        ConfigurationError: the schedule is not known.
    """
    return WebhooksKit(sender, schedule, allow_http)
