"""Who may see what, and who may do what.

A run belongs to the person it was started for. Others are told that there is none, in the same words as for
an id that nobody ever used: an id is not a secret, and a different answer would tell that it exists. A run
without an owner (a schedule's, say) is for admins. Admins see all runs, and only they act on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from errands.ops.errors import NotAllowed

ADMIN = "admin"
PERSONAL_DATA = "personal-data"


@dataclass(frozen=True, slots=True)
class Person:
    """Whoever asks.

    Args:
        id: the same text that runs are sent with as their `owner`.
        roles: role names; Errands knows `"admin"` and `"personal-data"`: an admin who has the second one as
            well is shown what tasks mark as `Personal`.
    """

    id: str
    roles: frozenset[str] = frozenset()

    @property
    def is_admin(self) -> bool:
        """Whether this person may see everything and act on it."""
        return ADMIN in self.roles

    @property
    def sees_personal_data(self) -> bool:
        """Whether this person is shown personal data in arguments. Admins as such are not."""
        return self.is_admin and PERSONAL_DATA in self.roles


class Owned(Protocol):
    """What has an owner, or None."""

    @property
    def owner(self) -> str | None: ...


def may_see(person: Person, run: Owned) -> bool:
    """Whether `person` may see `run`."""
    return person.is_admin or (run.owner is not None and run.owner == person.id)


def require_admin(person: Person, what: str) -> None:
    """Refuse whoever is no admin.

    Args:
        person: who asks.
        what: the deed, as in "only admins may <what>".

    Raises:
        NotAllowed: `person` is no admin.
    """
    if not person.is_admin:
        raise NotAllowed(f"only admins may {what}")
