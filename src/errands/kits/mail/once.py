"""One mail, however often its run is tried."""

from __future__ import annotations

from errands import Run
from errands.kits.mail.message import Message
from errands.kits.mail.provider import Mailer, Receipt


async def send_once(run: Run, mailer: Mailer, message: Message) -> Receipt:
    """Send `message`, unless this run has sent it: a retry or a second delivery does not send it again.

    A run that sends several gives each a `message_id` of its own; `stable_message_id` makes one.

    Raises:
        EffectUnknown, UnknownOutcomeError: it was sent, or about to be, and nobody can say whether it was
            taken over. It is not sent again by itself.
        And what `Mailer.send` raises.
    """
    kept = await run.once(f"mail {message.message_id or ''}".strip()[:200], mailer.send, message)
    return Receipt(**kept)
