"""What is said of a system that is measured, and how the systems are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis

from benchmarks import contenders

PROCESSES = 2
"""How many cores each system is set up to use."""

DRAIN, BARE, DEFAULT = "drain", "bare", "default"
SLEEPERS, ACCEPT, MANY = "sleepers", "accept", "many"
PICKUP, COMMANDS = "pickup", "commands"
MEASURES = (DRAIN, BARE, DEFAULT, SLEEPERS, ACCEPT, MANY, PICKUP, COMMANDS)
"""The measures, in the order of the course; `course.py` has one function for each."""


class BenchmarkError(Exception):
    """The measurement failed, or would have given a wrong figure."""


class NotThere(BenchmarkError):
    """This contender cannot be measured here, and why; the others can."""


@dataclass(frozen=True)
class Place:
    """Where one contender works, with nobody else: its server and its folder.

    Its processes find both in their environment, as `BENCHMARK_BROKER_URL` and `BENCHMARK_HOME`.
    """

    url: str
    home: Path
    client: redis.Redis


@dataclass(frozen=True)
class Setting:
    """One way to set a system up.

    Attributes:
        name: the program finds it as `program.SETTING`.
        note: what is set, in a few words, as the report tells it.
        workers: the commands that together are its worker. A first word without a slash is a program of the
            contender's environment.
        companions: the commands of what else runs beside it in production, by name.
    """

    name: str
    note: str
    workers: Sequence[Sequence[str]]
    companions: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _nothing_more(place: Place) -> bool:
    return True


@dataclass(frozen=True)
class Contender:
    """One system under measurement. A file in `contenders/` that ends with `CONTENDER = …` adds one.

    Attributes:
        label: for people.
        order: place in the tables.
        program: the module in `programs/` that is the application: tasks, and `SENDER`.
        environment: the `requirements/<name>.txt` whose own environment it runs in; empty: this one.
        packages: the distributions whose versions matter.
        best: the fastest setting for empty tasks that its documentation offers.
        waiting: the same for tasks that wait.
        default: as its documentation starts.
        queues: the keys where its messages wait or are worked on; all are empty when it is done.
        results: what a stored result is: a pattern of keys, or the name of one hash.
        keeps: whether a task that is given out survives the kill of its worker in the broker.
        share: of the tasks asked for; slow systems need fewer for a figure as steady.
        measures: what is measured of it.
        ours: whether this is Errands, and which of its rows is the one that is compared with peers.
        recorded: whether its companions have written down all that happened.
    """

    label: str
    order: int
    program: str
    packages: Sequence[str]
    best: Setting
    environment: str = ""
    waiting: Setting | None = None
    default: Setting | None = None
    queues: Sequence[str] = ()
    results: str = ""
    keeps: bool = True
    share: float = 1.0
    measures: Sequence[str] = MEASURES
    ours: bool = False
    recorded: Callable[[Place], bool] = _nothing_more

    def count(self, tasks: int) -> int:
        """How many empty tasks are sent to it where `tasks` are asked for."""
        return max(50, round(tasks * self.share))

    def setting(self, measure: str) -> Setting:
        """The setting under which this is measured."""
        chosen = {DEFAULT: self.default, SLEEPERS: self.waiting}.get(measure)
        return chosen or self.best


def names() -> list[str]:
    """The contenders there are, in the tables' order."""
    modules = pkgutil.iter_modules(contenders.__path__)
    found = [module.name for module in modules if not module.name.startswith("_")]
    return sorted(found, key=lambda name: load(name).order)


def load(name: str) -> Contender:
    """The contender of that name.

    Raises:
        BenchmarkError: there is none.
    """
    try:
        module = importlib.import_module(f"{contenders.__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{contenders.__name__}.{name}":
            raise
        raise BenchmarkError(f"no contender is called {name!r}; there are: {', '.join(names())}") from None
    contender: Contender = module.CONTENDER
    return contender
