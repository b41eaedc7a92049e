"""What the event stream lost, told from where the ledger is and what the stream says of itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

from errands.broker.events import Extent
from errands.store.writes import START, Position, entry_order


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Args:
        position: where to go on; the one that was asked about if there is nothing to change.
        restarted: the stream ends before our position: the server came back without its newest data.
        dropped: entries that we had not read are gone (trimmed by somebody else, or deleted).
        count: how many of them.
        exact: whether `count` is exact; else there may be more.
    """

    position: Position
    restarted: bool = False
    dropped: bool = False
    count: int = 0
    exact: bool = True


def compare(position: Position, extent: Extent) -> Finding:
    """Whether entries are missing between `position` and what the stream holds.

    The recorder trims up to its position and never past it, and the entry at the position stays; so a stream
    that begins behind it was cut by others. How much is gone is known where the server counts what was ever
    written (Redis from 7 on, Valkey), and the ledger has counted along.
    """
    if entry_order(extent.last_id) < entry_order(position.entry_id):
        doubtful = max(position.entry_id, position.doubtful_until, key=entry_order)
        # What the new stream dropped before we looked cannot be told from what we had.
        begins = replace(position, entry_id=START, doubtful_until=doubtful, entries=_dropped(extent))
        return Finding(begins, restarted=True)
    caught_up = extent.last_id == position.entry_id
    cut = extent.length > 0 and entry_order(extent.first_id) > entry_order(position.entry_id)
    if not (caught_up or cut):
        return Finding(position)
    if extent.added is None:
        return _uncounted(position, extent, cut)
    unread = extent.length if cut else 0
    passed = extent.added - unread  # written up to where we go on
    if position.entries is None or passed < position.entries:
        # Never counted along, or a server that counts anew: from here on we know.
        known = replace(position, entries=passed)
        return Finding(known) if position.entries != passed else Finding(position)
    count = passed - position.entries
    if count == 0:
        return Finding(position)
    return Finding(replace(position, entries=passed), dropped=True, count=count)


def _dropped(extent: Extent) -> int | None:
    return None if extent.added is None else extent.added - extent.length


def _uncounted(position: Position, extent: Extent, cut: bool) -> Finding:
    """Without the server's count: the entry at our position is gone, and whole blocks go at a time."""
    if not cut or position.entry_id == START:
        return Finding(position)
    # Told once: from now on the position is just before what is left.
    milliseconds, sequence = entry_order(extent.first_id)
    before = (milliseconds, sequence - 1) if sequence else (milliseconds - 1, 2**64 - 1)
    moved = replace(position, entry_id=f"{before[0]}-{before[1]}", entries=None)
    return Finding(moved, dropped=True, count=1, exact=False)
