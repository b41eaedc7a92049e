"""Who may see what."""

from __future__ import annotations

import pytest

from errands import State
from errands.ops.access import Person, may_see, require_admin
from errands.ops.errors import NotAllowed
from errands.ops.run_view import RunView

ADMIN = Person("root", frozenset({"admin"}))


def run(owner: str | None) -> RunView:
    return RunView(id="r", state=State.QUEUED, owner=owner)


@pytest.mark.parametrize(
    ("person", "owner", "sees"),
    [
        (Person("ann"), "ann", True),
        (Person("ann"), "bob", False),
        (Person("ann"), None, False),
        (Person(""), None, False),
        (Person("ann", frozenset({"staff", "administrator"})), "bob", False),
        (ADMIN, "bob", True),
        (ADMIN, None, True),
    ],
)
def test_a_run_is_its_owners_and_the_admins(person: Person, owner: str | None, sees: bool) -> None:
    assert may_see(person, run(owner)) is sees


def test_only_admins_act() -> None:
    require_admin(ADMIN, "revoke runs")
    with pytest.raises(NotAllowed, match="only admins may revoke runs"):
        require_admin(Person("ann", frozenset({"staff"})), "revoke runs")
