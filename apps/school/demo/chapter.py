"""What the chapters of the demo have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from school.demo.client import School, Tell, say_nothing

Steps = list[tuple[str, Callable[[], str]]]
"""Titles, and what each step does. It returns a few words on what came back, or raises DemoError."""


class Chapter(ABC):
    """A part of the demo. `tell` is heard of what goes on while a step is at work."""

    title: ClassVar[str]

    def __init__(self, school: School) -> None:
        self.school = school
        self.tell: Tell = say_nothing

    @abstractmethod
    def steps(self) -> Steps:
        """The steps, in order."""
