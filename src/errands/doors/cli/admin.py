"""How commands act on an application's records: as an admin, since whoever can start programs with the
application's settings can do anything to it.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from errands.core.errors import ErrandsError
from errands.doors.cli.commands import required
from errands.doors.local.errors import LocalRunError

if TYPE_CHECKING:
    from errands import Errands
    from errands.ops.access import Person

T = TypeVar("T")

ReasonOption = Annotated[str | None, typer.Option("--reason", help="For the audit trail.")]


def errands_app(reference: str) -> Errands:
    """The application that `reference` names.

    Raises:
        LocalRunError: there is none, or it is a plain Celery application, which keeps no records.
    """
    from errands import Errands
    from errands.doors.cli.application import load_app

    application = load_app(required(reference))
    if not isinstance(application, Errands):
        raise LocalRunError(
            f"{reference} is a plain Celery application, which keeps no such records: make it an Errands one."
        )
    return application


def me() -> Person:
    """Who runs the command, as the audit trail names them."""
    from errands.ops.access import ADMIN, Person

    return Person(f"cli:{getpass.getuser()}", frozenset({ADMIN}))


def told(deed: Callable[[], T]) -> T:
    """What `deed` returns; what it refuses is told as one line, without a traceback."""
    try:
        return deed()
    except ErrandsError as exc:
        raise LocalRunError(str(exc)) from exc
