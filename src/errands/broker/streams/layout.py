"""Where the messages of queues are, and what a delivery tag says."""

from __future__ import annotations

from errands.broker.keys import Keys
from errands.core.task import LEVELS

GROUP = "workers"
TELLERS = "tellers"

# Most reads go through the levels from the urgent ones down. Now and then one begins lower, so that what is
# not urgent gets a share however much of the urgent there is: an eighth for low, an eighth for normal.
_USUAL = ",".join(LEVELS)
_TURNS = {3: "normal,high,low", 7: "low,high,normal"}


def turn(number: int) -> str:
    """The levels in the order in which the read of this number takes them, with commas."""
    return _TURNS.get(number % 8, _USUAL)


def streams_of(keys: Keys, queue: str) -> list[str]:
    """All streams of a queue, urgent first."""
    return [key for level in LEVELS for key in (keys.front(queue, level), keys.stream(queue, level))]


def lines_of(keys: Keys, queue: str) -> list[str]:
    """The keys of the lines in which tenants stand (see `lua/fair.lua`)."""
    lines = [keys.line(queue, level) for level in LEVELS]
    return [line + part for line in lines for part in ("", ":turns", ":tenants", ":clock")]


def all_keys(keys: Keys, queue: str) -> list[str]:
    """All keys of a queue but its dead letters."""
    waiting = [*streams_of(keys, queue), *lines_of(keys, queue)]
    later = [
        keys.delayed(queue),
        keys.delayed_messages(queue),
        keys.limited(queue),
        keys.limited_messages(queue),
    ]
    return [*waiting, *later]


def tag_of(stream: str, entry: str) -> str:
    """The delivery tag of an entry."""
    return f"{stream}|{entry}"


def place_of(keys: Keys, tag: str) -> tuple[str, str]:
    """The queue and the level of the message that a delivery tag names."""
    plain = split_tag(tag)[0].removesuffix(":front")
    queue, _, level = plain.removeprefix(keys.stream("", "")[:-1]).rpartition(":")
    return queue, level


def split_tag(tag: str) -> tuple[str, str]:
    """The stream and the entry that a delivery tag names."""
    stream, _, entry = tag.rpartition("|")
    return stream, entry
