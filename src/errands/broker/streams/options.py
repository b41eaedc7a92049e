"""The transport options of the queues, with what they are when nobody says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kombu.utils.imports import symbol_by_name

# Told of each dead letter: queue, message as it was, reason.
Hook = Callable[[str, bytes, str], None]

NAMES = ("key_prefix", "read_max", "max_deliveries", "dead_letters_max", "adopt_lists", "on_dead_letter")


@dataclass(frozen=True, slots=True)
class Options:
    """What `broker_transport_options` may say of the queues.

    Args:
        key_prefix: of all keys; kombu's `global_keyprefix` comes before it.
        read_max: messages that one read takes at most.
        max_deliveries: times that a message may be rescued from a worker that died; then it is a dead letter.
        dead_letters_max: how many a queue keeps, about; past it the oldest go.
        adopt_lists: whether workers take over what a stock producer has put into the queue's list.
        on_dead_letter: a function, or "module:function", that is told of each; None logs an error.
    """

    key_prefix: str = "errands:"
    read_max: int = 100
    max_deliveries: int = 20
    dead_letters_max: int = 10_000
    adopt_lists: bool = True
    on_dead_letter: Hook | str | None = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> Options:
        """Those of a connection's transport options that are ours."""
        return cls(**{name: values[name] for name in NAMES if name in values})

    @property
    def hook(self) -> Hook | None:
        """The function that `on_dead_letter` names."""
        found: Hook | None = (
            symbol_by_name(self.on_dead_letter)  # type: ignore[no-untyped-call]
            if isinstance(self.on_dead_letter, str)
            else self.on_dead_letter
        )
        return found
