"""HTTP's Retry-After, as a wait."""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

from errands.core import clock

# However long a server asks us to wait, after a day somebody should look.
LONGEST_WAIT = 24 * 3600.0


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header (RFC 9110, 10.2.3: seconds or a date) in seconds from now, at most a day.

    None where there is none, or where it can't be read.
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return LONGEST_WAIT if len(text) > 9 else min(float(text), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - clock.timestamp()
    return float(min(max(math.ceil(wait), 0), LONGEST_WAIT))
