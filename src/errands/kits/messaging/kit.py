"""What `app.use` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from errands import ConfigurationError, Deliveries, Limit
from errands.kits.messaging import tasks as kit_tasks
from errands.kits.messaging.bulk import BulkMessages
from errands.kits.messaging.console import ConsoleMessenger
from errands.kits.messaging.numbers import check_region
from errands.kits.messaging.provider import Messenger
from errands.kits.messaging.twilio import TwilioMessenger
from errands.kits.messaging.whatsapp import WhatsAppMessenger

if TYPE_CHECKING:
    from errands import Errands, Settings

LIMIT = "messages"


class MessagingKit:
    """See `kit`."""

    def __init__(self, messenger: Callable[[], Messenger] | None, tasks: bool, limit: str | None) -> None:
        self._messenger = messenger
        self._tasks = tasks
        self._limit = limit

    def install(self, app: Errands) -> None:
        """Provide `Messenger` and `BulkMessages`, declare the limit and, where asked for, the tasks.

        Raises:
            ConfigurationError: a setting that the provider needs is missing; a region or a limit is none.
        """
        settings = app.settings
        region = check_region(settings.phone_region)
        rate = settings.messaging_limit if self._limit is None else self._limit
        limit = Limit(rate, name=LIMIT) if rate else None
        if limit is not None:
            app.add_limit(limit)
        make = self._messenger or messenger_from(settings)
        app.provide(Messenger, make, scope="process")

        def bulk() -> BulkMessages:
            instance = app.resources.instance
            messenger: Messenger = instance(Messenger)  # type: ignore[type-abstract]
            return BulkMessages(messenger, instance(Deliveries), region=region, limit=limit)

        app.provide(BulkMessages, bulk, scope="process")
        if self._tasks:
            kit_tasks.register(app)


def kit(
    messenger: Callable[[], Messenger] | None = None, *, tasks: bool = False, limit: str | None = None
) -> MessagingKit:
    """Messages for an app: `app.use(messaging.kit(tasks=True))`.

    Args:
        messenger: makes the provider, once a process; by default as MESSAGING_PROVIDER says. Tests give
            `FakeMessenger`, or `lambda: their_own`.
        tasks: declare `send_bulk_messages` and `send_template_message` on the queue "messaging".
        limit: messages in a time, over all workers: "100/m"; "" for none. By default MESSAGING_LIMIT.
    """
    return MessagingKit(messenger, tasks, limit)


def messenger_from(settings: Settings) -> Callable[[], Messenger]:
    """What makes the provider that the settings ask for.

    Raises:
        ConfigurationError: a setting that it needs is missing.
    """
    if settings.messaging_provider == "whatsapp":
        token, number = settings.whatsapp_token, settings.whatsapp_phone_number_id
        if not token or not number:
            raise ConfigurationError(
                "MESSAGING_PROVIDER is whatsapp: it needs WHATSAPP_TOKEN and WHATSAPP_PHONE_NUMBER_ID"
            )
        return lambda: WhatsAppMessenger(token.get_secret_value(), number, url=settings.whatsapp_url)
    if settings.messaging_provider == "twilio":
        account, password, sender = (
            settings.twilio_account_sid, settings.twilio_auth_token, settings.twilio_from,
        )  # fmt: skip
        if not account or not password or not sender:
            raise ConfigurationError(
                "MESSAGING_PROVIDER is twilio: it needs TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TWILIO_FROM"
            )
        return lambda: TwilioMessenger(account, password.get_secret_value(), sender, url=settings.twilio_url)
    return lambda: ConsoleMessenger(settings.home / "messages.jsonl")
