"""What a history proves: pure functions over facts, and the system's own last words on each run.

The promise: accepted − done − dead-lettered − revoked = nothing; what is safe to repeat was done exactly
once; what is not was repeated only where a process died between doing it and saying so; states moved as they
may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.crash.history import Fact, What

from errands.core.states import State, may_move


@dataclass(frozen=True, slots=True)
class Move:
    """A move that the system itself told: the run's state after it, and the attempt it belongs to."""

    run: str
    after: State
    attempt: int = 0
    reopened: bool = False


@dataclass(frozen=True, slots=True)
class Final:
    """What the system says at the end.

    Attributes:
        states: of each run, as far as it knows one.
        dead: runs kept as dead letters.
        held: runs whose message the server still has, somewhere.
        recorded: states in the lasting record, where there is one.
        moves: all that it told, in order; empty where it tells none.
    """

    states: Mapping[str, State] = field(default_factory=dict)
    dead: Collection[str] = ()
    held: Collection[str] = ()
    recorded: Mapping[str, State] | None = None
    moves: Sequence[Move] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The judgement. Lists name runs; an empty report but for `runs` and `recovery` is a kept promise."""

    runs: int
    lost: list[str]
    stuck: list[str]  # not done in time, but still there
    left: list[str]  # over, but their message is still there: it would be given out again
    doubled: list[str]
    repeated: list[str]  # done again because its process was killed after doing it: nobody can prevent that
    given_up: list[str]  # dead letters of tasks that do no harm
    not_once: list[str]
    revived: list[str]
    illegal: list[str]
    misstated: list[str]
    recovery: float | None

    @property
    def violations(self) -> list[str]:
        """Each broken promise as a line."""
        broken = {
            "lost": self.lost, "not done in time": self.stuck,
            "over, but not acknowledged": self.left, "done twice": self.doubled,
            "given up, though harmless": self.given_up, "safe to repeat, but not done once": self.not_once,
            "began after it was revoked": self.revived, "moved as it may not": self.illegal,
            "told wrongly": self.misstated,
        }  # fmt: skip
        return [
            f"{what}: {len(found)} ({', '.join(found[:5])}{', …' if len(found) > 5 else ''})"
            for what, found in broken.items()
            if found
        ]


def check(
    facts: Sequence[Fact], final: Final, keys: Collection[str], *, doomed: Collection[str] = ()
) -> Report:
    """Judge a history.

    Args:
        facts: of the time that is judged, in order.
        final: what the system says of the runs now.
        keys: what the store of unique keys holds.
        doomed: tasks whose runs may become dead letters.
    """
    doubled, repeated = done_twice(facts)
    missing = unfinished(facts, final.dead)
    return Report(
        runs=len({fact.run for fact in facts if fact.what in (What.ACCEPTED, What.BEGUN)}),
        lost=[run for run in missing if run not in final.held],
        stuck=[run for run in missing if run in final.held],
        left=sorted(set(final.held) - set(missing)),
        doubled=doubled,
        repeated=repeated,
        given_up=given_up(facts, final.dead, doomed),
        not_once=not_once(facts, keys),
        revived=revived(facts),
        illegal=illegal_moves(final.moves),
        misstated=misstated(facts, final),
        recovery=recovery(facts),
    )


def unfinished(facts: Iterable[Fact], dead: Collection[str]) -> list[str]:
    """accepted − done − dead-lettered − revoked. `dead` are ids of runs."""
    accepted: dict[str, None] = {}
    gone: set[str] = set(dead)
    for fact in facts:
        if fact.what is What.ACCEPTED:
            accepted[fact.run] = None
        elif fact.what in (What.ENDED, What.RAISED, What.REVOKED):
            gone.add(fact.run)
    return [run for run in accepted if run not in gone]


def done_twice(facts: Iterable[Fact]) -> tuple[list[str], list[str]]:
    """Keys whose effect was had more than once: without need, and because a process died in between."""
    effects: defaultdict[str, list[Fact]] = defaultdict(list)
    died: dict[int, float] = {}
    for fact in facts:
        if fact.what is What.EFFECT:
            effects[fact.key].append(fact)
        elif fact.what is What.KILLED:
            died[fact.pid] = fact.at
    doubled, repeated = [], []
    for key, found in effects.items():
        if len(found) > 1:
            # Each but the last must be one that its process could not speak of any more.
            excused = all(fact.at <= died.get(fact.pid, float("-inf")) for fact in found[:-1])
            (repeated if excused else doubled).append(key)
    return doubled, repeated


def given_up(facts: Iterable[Fact], dead: Collection[str], doomed: Collection[str]) -> list[str]:
    """Runs that are dead letters, though their tasks do no harm."""
    return [f.run for f in facts if f.what is What.ACCEPTED and f.run in dead and f.task not in doomed]


def not_once(facts: Iterable[Fact], keys: Collection[str]) -> list[str]:
    """Keys that a task meant to keep in the store, and that the store does not hold."""
    stored = set(keys)
    return list(dict.fromkeys(f.key for f in facts if f.what is What.ENDED and f.key not in stored))


def revived(facts: Iterable[Fact]) -> list[str]:
    """Runs that began after they had been revoked."""
    revoked: set[str] = set()
    found: dict[str, None] = {}
    for fact in facts:
        if fact.what is What.REVOKED:
            revoked.add(fact.run)
        elif fact.what is What.BEGUN and fact.run in revoked:
            found[fact.run] = None
    return list(found)


def illegal_moves(moves: Iterable[Move]) -> list[str]:
    """Moves that `errands.core.states` does not allow, and attempts that counted backwards."""
    states: dict[str, State] = {}
    attempts: dict[str, int] = {}
    found = []
    for move in moves:
        before = states.get(move.run)
        if before is not None and move.after in (State.QUEUED, State.SCHEDULED) and not move.reopened:
            continue  # sent a second time, or told late: it moves nothing
        if not move.reopened and not may_move(before, move.after):
            found.append(f"{move.run}: {before} → {move.after}")
        if move.attempt and move.attempt < attempts.get(move.run, 0):
            found.append(f"{move.run}: attempt {attempts[move.run]} → {move.attempt}")
        states[move.run] = move.after
        attempts[move.run] = max(move.attempt, attempts.get(move.run, 0))
    return found


def misstated(facts: Iterable[Fact], final: Final) -> list[str]:
    """Runs of which the system says something else than what was seen, or its record than its live state."""
    accepted: set[str] = set()
    ended: set[str] = set()
    for fact in facts:
        if fact.what is What.ACCEPTED:
            accepted.add(fact.run)
        elif fact.what is What.ENDED:
            ended.add(fact.run)
    found = []
    for run in sorted(accepted):
        state = final.states.get(run)
        if state is None:
            continue
        if run in ended and state is not State.SUCCEEDED and state is not State.REVOKED:
            found.append(f"{run}: was done, is told to be {state}")
        elif run not in ended and state is State.SUCCEEDED:
            found.append(f"{run}: was not done, is told to be {state}")
        if final.recorded is not None and final.recorded.get(run) is not state:
            found.append(f"{run}: {state}, recorded as {final.recorded.get(run)}")
    return found


def recovery(facts: Iterable[Fact]) -> float | None:
    """The most seconds from the last fault (or its healing) until a run that was open then went on.

    A fault is also each KILL. Open is what had been accepted and had not ended. None where nothing was open.
    """
    open_runs: set[str] = set()
    waiting: dict[str, float] = {}
    longest: float | None = None
    for fact in facts:
        match fact.what:
            case What.ACCEPTED:
                open_runs.add(fact.run)
            case What.FAULT | What.KILLED:
                waiting |= dict.fromkeys(open_runs, fact.at)
            case What.HEALED:
                waiting |= dict.fromkeys(waiting, fact.at)
            case What.BEGUN | What.EFFECT | What.ENDED | What.RAISED | What.REVOKED:
                if fact.run in waiting:
                    longest = max(longest or 0.0, fact.at - waiting.pop(fact.run))
                if fact.what in (What.ENDED, What.RAISED, What.REVOKED):
                    open_runs.discard(fact.run)
    return longest
