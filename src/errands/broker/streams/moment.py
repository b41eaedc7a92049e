"""Messages that come in the moment of their sending: their runs begin without asking the server for leave.

Who sends a new run marks its entry. A worker that is given a marked entry for the first time, no longer
after its sending than `MOMENT`, and whose lease has held all the while, knows what the server would say: the
run is new, nobody else has had its message, and nobody has revoked it, since who revokes a run lets the
moment of its sending pass first.

How long ago it was sent is known by the server's clock alone: the entry's id says when, and the read before,
which found nothing, says when that was. What has passed since is measured here, from before that read was
sent.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from errands.broker import leases
from errands.core import clock

FRESH = b"f"  # the mark, a field of an entry; what moves a message elsewhere leaves it out
MOMENT = 0.02  # seconds
# Seconds that the word of a start may take to the server, to be there before a revocation.
_IN_FLIGHT = 0.01
_SURE = 1.0  # seconds that the clocks of those who send may differ from ours
# A read sees to it that its worker's lease lasts for so long.
_LEASED = leases.SECONDS / 2


class Look(NamedTuple):
    """A read that found nothing: when it was sent (`time.monotonic`), and the server's time in µs."""

    sent_at: float
    server_us: int


def is_marked(fields: Sequence[bytes]) -> bool:
    """Whether these are the fields of an entry that was marked by who sent a new run."""
    return len(fields) == 4 and fields[2] == FRESH


def ends(look: Look, entry: str, now: float) -> float:
    """When the moment of sending is over for a marked entry, by `time.monotonic`; 0 where nobody can tell.

    Args:
        look: the last read that found nothing.
        entry: id of the entry that came since.
        now: `time.monotonic`.
    """
    end = look.sent_at + (int(entry.partition("-")[0]) * 1000 - look.server_us) / 1_000_000 + MOMENT
    # One that would end later was sent in the future: the server's clock was set.
    return end if now - look.sent_at < _LEASED and end <= now + MOMENT else 0.0


def let_pass(sent_at: float | None) -> None:
    """Wait, before a run is revoked, until no worker begins it any more without asking.

    Args:
        sent_at: when it was sent, in seconds since 1970; None where nobody knows. Where that was a while ago,
            nothing is waited for.
    """
    if sent_at is None or clock.timestamp() - sent_at < _SURE:
        time.sleep(MOMENT + _IN_FLIGHT)
