"""How long to wait before the next attempt, and whether there is one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """A task's retry policy: `times` further attempts, the first after `first` seconds, each wait `factor`
    times the last, none over `most`, each shortened or lengthened by up to `jitter` (a share of it).

    >>> [Retry(3, first=60, most=600).wait(n, random=lambda: 0.5) for n in (1, 2, 3)]
    [60.0, 120.0, 240.0]

    Args:
        times: attempts after the first one; 0 never tries again.
        first: seconds before the second attempt.
        most: the longest wait in seconds, jitter included.
        factor: 2.0 doubles each wait; 1.0 keeps it.
        jitter: 0.1 spreads each wait evenly over ±10 %, so that what failed together does not return
            together. 0 turns it off.
        delays: waits in seconds, one an attempt, in place of `first` and `factor`; the last one repeats.
        on: exceptions that are worth another try. Everything by default.
        never: exceptions that are not, though `on` names them. `Discard` never is.

    An exception with an attribute `retry_after` (seconds, as of HTTP's Retry-After) makes the wait at least
    that long, `most` notwithstanding.
    """

    times: int = 3
    first: float = 60.0
    most: float = 600.0
    factor: float = 2.0
    jitter: float = 0.1
    delays: tuple[float, ...] = ()
    on: tuple[type[BaseException], ...] = (Exception,)
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        problems = [
            text
            for wrong, text in (
                (self.times < 0, "times must be 0 or more"),
                (self.first < 0, "first must be 0 or more seconds"),
                (self.most < self.first, "most must not be less than first"),
                (self.factor < 1, "factor must be 1 or more"),
                (not 0 <= self.jitter <= 1, "jitter must lie between 0 and 1"),
                (any(delay < 0 for delay in self.delays), "delays must be 0 or more seconds"),
            )
            if wrong
        ]
        if problems:
            raise ValueError(f"{self}: " + "; ".join(problems))

    def covers(self, error: BaseException) -> bool:
        """Whether `error` is worth another try."""
        return isinstance(error, self.on) and not isinstance(error, self.never)

    def wait(
        self,
        attempt: int,
        error: BaseException | None = None,
        *,
        random: Callable[[], float] = random.random,
    ) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1).

        `random` gives numbers in [0, 1); 0.5 means no jitter.
        """
        if self.delays:
            wait = self.delays[min(attempt, len(self.delays)) - 1]
        else:
            # Past 64 doublings any wait is over `most`; the bound keeps the power a float.
            wait = min(self.most, self.first * self.factor ** min(attempt - 1, 64))
        wait += wait * self.jitter * (2 * random() - 1)
        if not self.delays:
            wait = min(wait, self.most)
        asked = getattr(error, "retry_after", None)
        return max(wait, float(asked)) if asked is not None else wait
