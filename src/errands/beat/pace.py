"""How often the ledger is written: at once where the machine has time for it, seldom while it is busy.

A lower priority (`niceness.py`) is not enough: whoever is on the processor stays there for some milliseconds,
whoever else wakes up meanwhile, and a worker and the server wait for each other many times in those.
"""

from __future__ import annotations

from collections.abc import Callable

import psutil

# Under a steady trickle a pause makes one transaction, and one row a run, of what would have been a hundred.
# Screens and endpoints ask Valkey first, so nobody waits for it.
GATHER_SECONDS = 0.1
_BUSY = 75.0  # per cent of the machine's processors in use
_SHARE = 0.03  # of a busy machine
_LONGEST_SECONDS = 10.0
# More than a server takes, so that what waits for the ledger never grows past what the stream holds.
_MOST_A_SECOND = 100_000


def machine_use() -> float:
    """Per cent of this machine's processors that were in use since the last call; 0 where nobody may know."""
    try:
        return psutil.cpu_percent()
    except OSError:  # a container may hide it
        return 0.0


class Pace:
    """Says how long to wait before the next batch.

    Args:
        events_max: entries that the stream may hold; past it the oldest are dropped.
        use: per cent of the machine's processors in use since it was last called.
        processors: how many there are.
    """

    def __init__(
        self, events_max: int, *, use: Callable[[], float] = machine_use, processors: int | None = None
    ) -> None:
        self._patience = min(_LONGEST_SECONDS, events_max / _MOST_A_SECOND)
        self._use = use
        # One processor is at work for a while, and rests for so many times as long.
        self._rest = max(1.0, 1 / (_SHARE * (processors or psutil.cpu_count() or 1)) - 1)

    def pause(self, worked: float, *, more: bool, behind: float) -> float:
        """Seconds to wait.

        Args:
            worked: seconds that the last batch took.
            more: there is more to come already.
            behind: seconds since the last entry that the ledger has was written.
        """
        left = self._patience - behind
        if self._use() > _BUSY and left > 0:
            return max(GATHER_SECONDS, min(self._rest * worked, left))
        return 0.0 if more else GATHER_SECONDS
