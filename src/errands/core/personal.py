"""Personal data in arguments, and whom a run is about.

`Personal` is sealed as `Secret` is, under another name: who has the right to may see it. `Subject` is the id
of the person (the data subject of the GDPR, article 4), by which what is kept of them is found and erased.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from errands.core.errors import SecretError
from errands.core.secrets import MASK, Keyring, SecretMarker, is_sealed

T = TypeVar("T")


class PersonalMarker(SecretMarker):
    """Says in an annotation that a value is personal data."""

    kind = "personal\0"

    def __repr__(self) -> str:
        return "Personal"


class SubjectMarker:
    """Says in an annotation that a value is the id of the person whom the run is about."""

    def __repr__(self) -> str:
        return "Subject"


# `address: Personal[str]`: the task's body gets a plain str.
Personal = Annotated[T, PersonalMarker()]
# `user_id: Subject[int]`: a plain argument, and noted with the run.
Subject = Annotated[T, SubjectMarker()]


def reveal(value: Any, keyring: Keyring, task: str | None) -> Any:
    """`value` with the personal data in it opened, and secrets as `***`.

    Args:
        value: arguments as the record keeps them.
        keyring: opens them; what it cannot open stays `***`.
        task: the name of the task they were sealed for.
    """
    if isinstance(value, dict):
        return {reveal(key, keyring, task): reveal(item, keyring, task) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [reveal(item, keyring, task) for item in value]
    if not is_sealed(value):
        return value
    try:
        return keyring.open(value, f"{PersonalMarker.kind}{task}")
    except SecretError:
        return MASK
