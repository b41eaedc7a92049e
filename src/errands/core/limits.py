"""How often, and how many at once: limits that hold over all workers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

from errands.core.errors import ConfigurationError, InvalidArguments
from errands.core.paths import dead_end

_RATE = re.compile(r"(\d+)/(\d*)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MOST = 10**9
_LONGEST = 100 * 86_400  # seconds
_LONGEST_KEY = 64  # characters of a value that are kept as they are
RATE, SLOTS = "rate", "slots"

# What a call has at a dotted path of its arguments.
ValueAt = Callable[[str], Any]


class Bound(NamedTuple):
    """So many in so many seconds; in 0 seconds: so many at once. `str()` gives it as people write it."""

    most: int
    seconds: int

    @classmethod
    def parse(cls, text: str | int) -> Bound:
        """Read "100/m" (per s, m, h or d; "30/2s": in two seconds), or how many at once: 2 or "2".

        Raises:
            ConfigurationError: it is neither, it is zero, or its period is longer than 100 days.
        """
        found = None if isinstance(text, bool) else _RATE.fullmatch(str(text).replace(" ", ""))
        if found is not None:
            bound = cls(int(found[1]), int(found[2] or 1) * _SECONDS[found[3]])
            bad = bound.seconds == 0 or bound.seconds > _LONGEST
        elif isinstance(text, bool) or not re.fullmatch(r"\d+", str(text)):
            raise ConfigurationError(
                f'{text!r} is no limit: write how many in a second, minute, hour or day ("100/m", "30/10s"), '
                "or how many at once (2)"
            )
        else:
            bound, bad = cls(int(text), 0), False
        if bound.most == 0:
            raise ConfigurationError(
                f"a limit of zero ({text!r}) would let nothing start; to hold work back, pause its queue"
            )
        if bad or bound.most > _MOST:
            raise ConfigurationError(
                f"{text!r}: use a period of 1 s to 100 days, and at most {_MOST:,} in it"
            )
        return bound

    @property
    def kind(self) -> str:
        """`RATE` or `SLOTS`."""
        return RATE if self.seconds else SLOTS

    def __str__(self) -> str:
        if not self.seconds:
            return f"{self.most} at once"
        for unit in ("d", "h", "m", "s"):
            count, rest = divmod(self.seconds, _SECONDS[unit])
            if not rest:
                return f"{self.most}/{count if count > 1 else ''}{unit}"
        raise AssertionError("seconds are whole")


class Claim(NamedTuple):
    """What one call asks of one limit.

    Attributes:
        suffix: kind, name and key: what tells the limit's keys in Valkey from others.
        cost: how much the call counts.
        bound: as it is declared; it may have been changed since.
        about: "(school_id=5)"; "" for a limit of the whole task.
    """

    suffix: str
    cost: int
    bound: Bound
    about: str

    @property
    def name(self) -> str:
        """Kind and name, under which a changed limit is kept."""
        return self.suffix[: self.suffix.index(":", self.suffix.index(":") + 1)]

    def told(self, bound: Bound) -> str:
        """The limit in words, with what it is now."""
        return f"{bound} {self.about}".rstrip()


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many starts in a time, over all workers; what is over it waits, and uses no attempt up.

    Each attempt is a start, a retry too. In no window of the period, wherever it begins, do starts count more
    than the limit, by the clock of the server.

    Args:
        rate: "100/m": per s, m, h or d; "30/10s" in ten seconds.
        by: the argument for each of whose values the limit holds by itself; with dots into one
            ("order.shop"). None: one limit for the whole task.
        counts: the argument that tells how much a start counts: a list, tuple, set or mapping its length, a
            whole number itself, anything else 1. None: 1.
        name: tasks that give the same name share the limit; by default it is the task's own.
    """

    rate: str
    by: str | None = None
    counts: str | None = None
    name: str | None = None

    @property
    def bound(self) -> Bound:
        """The rate, read."""
        return Bound.parse(self.rate)

    def check(
        self, task: str, parameters: Collection[str], secrets: Collection[str] = (),
        hints: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Refuse a rule that cannot work for `task`.

        Args:
            task: its name.
            parameters: of its function, by name.
            secrets: those of them that are secret.
            hints: their type hints, by name.

        Raises:
            ConfigurationError: it names the task, the rule and what is wrong.
        """
        _check(task, f"limit={self.rate!r}", self, parameters, secrets, hints or {})
        if self.bound.kind != RATE:
            raise ConfigurationError(
                f'task {task!r}: limit={self.rate!r} has no period: write "{self.rate}/m", or '
                f"at_most=Concurrency({self.rate}) for how many at once"
            )

    def cost(self, value_at: ValueAt) -> int:
        """How much a call counts."""
        if self.counts is None:
            return 1
        found = value_at(self.counts)
        if isinstance(found, list | tuple | AbstractSet | Mapping):
            return len(found)
        return max(0, found) if isinstance(found, int) and not isinstance(found, bool) else 1


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many runs at work at once, over all workers; the others wait, and use no attempt up.

    A slot is a lease: that of a run whose worker died is free when the worker's lease is over.

    Args:
        at_once: how many.
        by: the argument for each of whose values the limit holds by itself; as with `Limit`.
        name: tasks that give the same name share the slots; by default they are the task's own.
    """

    at_once: int
    by: str | None = None
    name: str | None = None

    @property
    def bound(self) -> Bound:
        """How many, read."""
        return Bound.parse(self.at_once)

    def check(
        self, task: str, parameters: Collection[str], secrets: Collection[str] = (),
        hints: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Refuse a rule that cannot work for `task`: see `Limit.check`."""
        _check(task, f"at_most={self.at_once!r}", self, parameters, secrets, hints or {})
        if self.bound.kind != SLOTS:
            raise ConfigurationError(
                f"task {task!r}: at_most={self.at_once!r} is a rate: use limit=Limit({self.at_once!r})"
            )

    def cost(self, value_at: ValueAt) -> int:
        """A run takes one slot."""
        return 1


Rule = Limit | Concurrency


def check_all(
    task: str, limits: Sequence[Limit], at_most: Concurrency | None, parameters: Collection[str],
    secrets: Collection[str] = (), hints: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Refuse rules that cannot work for `task`, or not beside each other: see `Limit.check`."""
    names: set[str] = set()
    told: list[tuple[str, Any, type[Rule]]] = [("limit", rule, Limit) for rule in limits]
    if at_most is not None:
        told.append(("at_most", at_most, Concurrency))
    for word, rule, kind in told:
        if not isinstance(rule, kind):
            raise ConfigurationError(
                f"task {task!r}: {word}={rule!r}: use limit=Limit(…) for how often, and "
                "at_most=Concurrency(…) for how many at once"
            )
        rule.check(task, parameters, secrets, hints)
        name = full_name(task, rule)
        if name in names:
            raise ConfigurationError(
                f"task {task!r}: two of its limits have the name {name.partition(':')[2]!r}: "
                'give one of them another, as in Limit("1000/d", name="mail-per-day")'
            )
        names.add(name)


def full_name(task: str, rule: Rule) -> str:
    """Kind and name of a rule, as Valkey's keys have them."""
    return f"{rule.bound.kind}:{quote(rule.name or task, safe='')}"


class Declared(NamedTuple):
    """A limit as it is declared, by one task or by several that share it.

    Attributes:
        name: as people say it: the task's, or the one that was given.
        bound: what it is.
        by: the argument that it goes by, in the words of the first task.
        tasks: that are under it.
    """

    name: str
    bound: Bound
    by: str | None
    tasks: tuple[str, ...]


def added(limits: Mapping[str, Limit], limit: Limit) -> dict[str, Limit]:
    """`limits` and one more, by name: those that runs take from while they are at work.

    Raises:
        ConfigurationError: it has no name, goes by arguments, or another one of this name differs.
    """
    said = f"app.add_limit({limit!r})"
    if limit.name is None or not _NAME.fullmatch(limit.name):
        raise ConfigurationError(f"{said}: give it a name of up to 100 letters, digits, '.', '-' and '_'")
    if limit.by is not None or limit.counts is not None:
        raise ConfigurationError(f"{said}: it has no arguments to go by; run.allow says how much it takes")
    if limit.bound.kind != RATE:
        raise ConfigurationError(f'{said}: it has no period: write "{limit.rate}/m"')
    if limits.get(limit.name, limit).bound != limit.bound:
        raise ConfigurationError(f"{said}: it is {limits[limit.name].rate} elsewhere")
    return {**limits, limit.name: limit}


def declared(
    rules_of: Mapping[str, Sequence[Rule]], taken_from: Mapping[str, Limit] | None = None
) -> dict[str, Declared]:
    """All limits of an app, by kind and name.

    Args:
        rules_of: the rules of each task, by its name.
        taken_from: the limits that runs take from while they are at work.

    Raises:
        ConfigurationError: two tasks share a limit and say differently what it is.
    """
    found: dict[str, Declared] = {}
    of_runs = {"run.allow": tuple(taken_from.values())} if taken_from else {}
    for task, rules in [*of_runs.items(), *sorted(rules_of.items())]:
        for rule in rules:
            name = full_name(task, rule)
            known = found.get(name, Declared(rule.name or task, rule.bound, rule.by, ()))
            if known.bound != rule.bound or (known.by is None) is not (rule.by is None):
                raise ConfigurationError(
                    f"tasks {known.tasks[0]!r} and {task!r} share the limit {known.name!r} and say "
                    f"differently what it is: {known.bound}, by={known.by!r}; {rule.bound}, by={rule.by!r}"
                )
            found[name] = known._replace(tasks=(*known.tasks, task))
    return found


def claims(task: str, rules: Sequence[Rule], value_at: ValueAt) -> list[Claim]:
    """What a call asks of the rules of its task, in the order in which it waits for them.

    What holds for some runs alone comes first: a run that has its share of that, and waits for what holds for
    all, keeps nobody else waiting.
    """
    found = []
    for rule in sorted(rules, key=lambda rule: rule.by is None):
        cost = rule.cost(value_at)
        if cost:
            key = "" if rule.by is None else key_of(value_at(rule.by))
            about = "" if rule.by is None else f"({rule.by}={key})"
            found.append(Claim(f"{full_name(task, rule)}:{key}", cost, rule.bound, about))
    return found


def refuse_excess(task: str, rules: Sequence[Rule], value_at: ValueAt) -> None:
    """Refuse a call that counts more than its limit lets start in a whole period.

    Raises:
        InvalidArguments: it says how to split the call.
    """
    for rule in rules:
        if isinstance(rule, Limit) and rule.counts and (cost := rule.cost(value_at)) > rule.bound.most:
            raise InvalidArguments(
                task,
                [
                    f"{rule.counts}: it counts {cost:,}, and the limit is {rule.bound} in all, so it could "
                    f"never start: split it into calls of at most {rule.bound.most:,} (`delay_many` sends "
                    "them together)"
                ],
            )


def key_of(value: Any) -> str:
    """The value of an argument as a part of keys: 5 and "5" are the same, and what is long is a digest."""
    if isinstance(value, str | int | float | None):
        text = "" if value is None else str(value)
    else:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    if len(text) <= _LONGEST_KEY and text.isprintable():
        return text
    return "#" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def _check(
    task: str, said: str, rule: Rule, parameters: Collection[str], secrets: Collection[str],
    hints: Mapping[str, Any],
) -> None:  # fmt: skip
    try:
        _ = rule.bound
    except ConfigurationError as exc:
        raise ConfigurationError(f"task {task!r}: {said}: {exc}") from exc
    if rule.name is not None and not (isinstance(rule.name, str) and _NAME.fullmatch(rule.name)):
        raise ConfigurationError(
            f"task {task!r}: {said}: name={rule.name!r}: use up to 100 letters, digits, '.', '-' and '_'"
        )
    for word in ("by", "counts"):
        path = getattr(rule, word, None)
        if path is None:
            continue
        argument = path.partition(".")[0] if isinstance(path, str) and all(path.split(".")) else None
        if argument not in parameters:
            raise ConfigurationError(
                f"task {task!r}: {said}: {word}={path!r} names no argument; the task takes "
                f"{', '.join(parameters) or 'none'}"
            )
        if argument in secrets:
            raise ConfigurationError(
                f"task {task!r}: {said}: {word}={path!r} is a secret, and what a limit goes by is written "
                "down in the open: name another argument"
            )
        if why := dead_end(path, hints):
            raise ConfigurationError(f"task {task!r}: {said}: {word}={path!r} leads nowhere: {why}")
