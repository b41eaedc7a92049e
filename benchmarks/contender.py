"""What a system must offer to be measured, and how the systems are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import redis

from benchmarks import contenders


class BenchmarkError(Exception):
    """The measurement failed, or would have given a wrong figure."""


@dataclass(frozen=True)
class Place:
    """Where one contender works, with nobody else: its server and its folder.

    Its processes find both in their environment, as `BENCHMARK_BROKER_URL` and `BENCHMARK_HOME`.
    """

    url: str
    home: Path
    client: redis.Redis


class Contender(Protocol):
    """One system under measurement. A file in `contenders/` that ends with `CONTENDER = …` adds one.

    Attributes:
        label: for people.
        setup: how it is set up, in a sentence.
        packages: the distributions whose versions matter.
        order: place in the table. The last one, Errands, is compared with each of the others.
    """

    label: str
    setup: str
    packages: Sequence[str]
    order: int

    def worker(self, processes: int) -> list[str]:
        """The command of a worker that runs `processes` tasks at a time, each in a process."""
        ...

    def companions(self) -> dict[str, list[str]]:
        """The commands of whatever else runs in production, such as a scheduler, by name."""
        ...

    def sender(self, work: str) -> Callable[..., object]:
        """What a web application calls to send one task of this name, with the task's arguments."""
        ...

    def pending(self, place: Place) -> int:
        """Messages that the broker still holds: waiting, or taken and not acknowledged."""
        ...

    def recorded(self, place: Place) -> bool:
        """Whether its companions are up and have written down all that happened; True without companions."""
        ...


def names() -> list[str]:
    """The contenders there are, in the table's order. Those whose packages are not installed are left out."""
    modules = pkgutil.iter_modules(contenders.__path__)
    found = [module.name for module in modules if not module.name.startswith("_")]
    return sorted((name for name in found if _installed(name)), key=lambda name: load(name).order)


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


def _installed(name: str) -> bool:
    try:
        load(name)
    except ModuleNotFoundError:
        return False
    return True
