"""Every error that Errands raises, on one screen.

What a task raises to steer its own run is here too: `Discard` and `Snooze`.
"""

from __future__ import annotations

from datetime import timedelta


class ErrandsError(Exception):
    """The root of all errors of this library."""


class ConfigurationError(ErrandsError):
    """Something was declared or configured wrongly; raised at start, never in the middle of work."""


class InvalidArguments(ErrandsError, ValueError):
    """The arguments of a call do not fit the task's type hints.

    Raised in the caller, where the mistake was made; in the worker it ends the run for good.
    """

    def __init__(self, task: str, problems: list[str]) -> None:
        self.task = task
        self.problems = problems
        super().__init__(task, problems)

    def __str__(self) -> str:
        return f"{self.task}: " + "; ".join(self.problems)


class PayloadTooLarge(InvalidArguments):
    """The arguments weigh more than a message should carry."""


class PayloadLost(InvalidArguments):
    """Arguments that were kept apart from their message are gone, or not what was kept."""


class PayloadUnavailable(ErrandsError):
    """Arguments that are too large for a message could not be kept apart; nothing was sent."""


class SecretError(ErrandsError):
    """A sealed value cannot be opened, or there is no key to seal with."""


class UntrustedMessage(ErrandsError):
    """A message is not one that we have signed, or it is an old one that somebody sends again."""


class BrokerUnavailable(ErrandsError):
    """The broker did not take the work, or did not say so in time; the text tells which."""


class RunNotFound(ErrandsError):
    """No run has this id, or it belongs to somebody else."""


class ActionRefused(ErrandsError):
    """What was asked cannot be done to this run in its present state."""


class Discard(ErrandsError):
    """Raise in a task to end its run now and for good, without another try.

    For what no repetition can mend: a course that is not complete, an address that does not exist.
    The text is shown to the people who may see the run.
    """


class Snooze(ErrandsError):
    """Raise in a task to be run again later without using up an attempt.

    For "not yet", as opposed to "it went wrong": a quota that is used up, a file still being uploaded.
    Not counted: neither `Retry.times` nor the run's attempt number moves. A snooze of zero goes to the back
    of the queue; a negative one is refused. There is no limit to the number of snoozes; a run's `expires`
    ends it.
    """

    def __init__(self, seconds: float | timedelta, note: str = "") -> None:
        self.seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        if not 0 <= self.seconds < float("inf"):
            raise ValueError(f"Snooze({seconds!r}): the wait must be zero or more seconds")
        self.note = note
        super().__init__(note or f"again in {self.seconds:g} s")


class DeadlinePassed(ErrandsError):
    """A run put itself off until after its deadline."""


class OutcomeUnknown(Discard):
    """Raise in an outside effect when nobody can say whether it happened; or catch it as what `run.once`
    says.

    A request that was sent and not answered may have been heard. It is not made again by itself: the run ends
    here, and a person looks, settles it and retries the run.
    """


class EffectUnknown(OutcomeUnknown):
    """An effect was begun, and it is not known whether it happened. The text names it, and what to do."""


class EffectBusy(Snooze):
    """Another attempt, or another run that shares the effect, is at it now: the run looks again soon."""


class CheckpointLost(Discard):
    """The rows are not those of the attempt before, so nobody can say which of them are done."""


class RunCancelled(BaseException):
    """The run is no longer wanted, or no longer this attempt's: end here, and clean up.

    Raised by `run.progress`, `run.check` and `run.resume`. No `Exception`, so that an `except Exception` in a
    task does not take it for a failure of its work. What the task returns or raises after it is not recorded.
    """
