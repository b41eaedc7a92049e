"""What the system's load must be for something to happen, as data: rows of a table can hold it too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

from errands.core.errors import ConfigurationError


class Load(Protocol):
    """How busy the system is just now."""

    def waiting(self, queue: str) -> int:
        """Messages that wait in a queue and may start at once."""

    def cpu(self) -> float:
        """How busy the processors of this machine are, in percent."""


@dataclass(frozen=True, slots=True)
class QueueBelow:
    """Fewer than `count` messages wait in `queue`."""

    kind: ClassVar[str] = "queue_below"
    queue: str
    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.queue, str) or not self.queue:
            raise ConfigurationError(f"QueueBelow({self.queue!r}, …): name a queue")
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise ConfigurationError(
                f"QueueBelow({self.queue!r}, {self.count!r}): the count must be a whole number, 1 or more; "
                "below 0 there is nothing"
            )

    def unmet(self, load: Load) -> str | None:
        """Why it is not so; None where it is."""
        waiting = load.waiting(self.queue)
        if waiting < self.count:
            return None
        return f"{waiting} messages wait in the queue {self.queue!r}, and {self.count} are too many"


@dataclass(frozen=True, slots=True)
class CpuBelow:
    """The processors of the machine on which the leading beat runs are busy to less than `percent`."""

    kind: ClassVar[str] = "cpu_below"
    percent: float

    def __post_init__(self) -> None:
        if not isinstance(self.percent, int | float) or not 0 < self.percent <= 100:
            raise ConfigurationError(
                f"CpuBelow({self.percent!r}): write percent, more than 0 and at most 100"
            )

    def unmet(self, load: Load) -> str | None:
        """Why it is not so; None where it is."""
        busy = load.cpu()
        return (
            None
            if busy < self.percent
            else f"the processors are busy to {busy:.0f} %, not below {self.percent:g}"
        )


Condition = QueueBelow | CpuBelow
_KINDS: dict[str, type[QueueBelow] | type[CpuBelow]] = {each.kind: each for each in (QueueBelow, CpuBelow)}


def to_data(conditions: Iterable[Condition]) -> list[dict[str, Any]]:
    """As JSON: `[{"queue_below": {"queue": "reports", "count": 100}}]`."""
    return [{condition.kind: asdict(condition)} for condition in conditions]


def from_data(data: Any) -> tuple[Condition, ...]:
    """What `to_data` wrote, or somebody by hand: one condition or a list of them.

    Raises:
        ConfigurationError: it is something else.
    """
    found: list[Condition] = []
    for item in data if isinstance(data, list | tuple) else [data]:
        if isinstance(item, QueueBelow | CpuBelow):
            found.append(item)
            continue
        kind, values = (
            next(iter(item.items())) if isinstance(item, Mapping) and len(item) == 1 else (None, None)
        )
        if kind not in _KINDS or not isinstance(values, Mapping):
            raise ConfigurationError(
                f"{str(item)[:80]} is no condition: use QueueBelow(queue, count) or CpuBelow(percent); as "
                'JSON {"queue_below": {"queue": "reports", "count": 100}} or {"cpu_below": {"percent": 80}}'
            )
        try:
            found.append(_KINDS[kind](**values))
        except TypeError as exc:
            raise ConfigurationError(f"the condition {kind!r}: {exc}") from exc
    return tuple(found)
