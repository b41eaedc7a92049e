"""What follows from a receiver's answer."""

from __future__ import annotations

from errands import Retry
from errands.core import retry_after
from errands.kits.webhooks.errors import WebhookFailed, WebhookGone, WebhookRefused
from errands.kits.webhooks.provider import Reply

# Client errors that say "not now" rather than "not this": time-out, conflict, too early, too many requests.
PASSING = frozenset({408, 409, 425, 429})

# Two schedules: the short one of the learning platform, and that of the Standard Webhooks specification
# (at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h), which outlasts a weekend.
SHORT = Retry(3, first=30, most=600)
STANDARD = Retry(9, delays=(5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400))


def check(reply: Reply) -> None:
    """Return if the webhook was taken (2xx); else raise what follows.

    Raises:
        WebhookGone: 410; the endpoint wants no more.
        WebhookRefused: another 4xx; the same request would be refused again.
        WebhookFailed: to be tried again: 408, 409, 425, 429, 5xx, and redirects, which are not followed since
            they could lead anywhere, and which may be a passing notice.
    """
    status = reply.status
    if 200 <= status < 300:
        return
    text = f"the receiver answered {status}"
    if status == 410:
        raise WebhookGone(f"{text} Gone: its endpoint is disabled", status=status)
    if 400 <= status < 500 and status not in PASSING:
        raise WebhookRefused(text, status=status)
    if 300 <= status < 400:
        text += ", a redirect, which is not followed: register the final address"
    raise WebhookFailed(text, status=status, retry_after=retry_after.seconds(reply.retry_after))
