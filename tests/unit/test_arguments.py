"""A bad call fails where it was made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, SecretStr

from errands.core.arguments import Arguments
from errands.core.errors import ConfigurationError, InvalidArguments, SecretError
from errands.core.secrets import Keyring, Secret, is_sealed


class Session:
    """Stands for a resource."""


class Address(BaseModel):
    street: str


PositiveInt = Annotated[int, Field(gt=0)]


@pytest.fixture
def keyring() -> Keyring:
    return Keyring.parse(Keyring.new_key())


def of(function: Any, **options: Any) -> Arguments:
    return Arguments("t", function, is_resource=lambda hint: hint is Session, **options)


def test_values_are_converted_and_made_json(keyring: Keyring) -> None:
    def task(user_id: int, at: datetime, key: UUID, address: Address) -> None: ...

    at = datetime(2026, 1, 2, tzinfo=UTC)
    key = UUID(int=7)
    arguments = of(task)
    args, kwargs = arguments.prepare(("5", at), {"key": key, "address": Address(street="x")}, keyring)
    assert args == (5, "2026-01-02T00:00:00Z")
    assert kwargs == {"key": str(key), "address": {"street": "x"}}
    restored, named = arguments.restore(args, kwargs, keyring)
    assert restored == (5, at)
    assert named == {"key": key, "address": Address(street="x")}


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "user_id"),
        ((1, 2, 3), {}, "too many positional"),
        ((1,), {"colour": "red"}, "colour"),
        (("x",), {}, "valid integer"),
        ((0,), {}, "greater than 0"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_name(
    keyring: Keyring, args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    def task(user_id: PositiveInt, text: str = "") -> None: ...

    with pytest.raises(InvalidArguments, match=words) as refused:
        of(task).prepare(args, kwargs, keyring)
    assert str(refused.value).startswith("t: ")


def test_all_problems_are_told_at_once(keyring: Keyring) -> None:
    def task(a: int, b: int) -> None: ...

    with pytest.raises(InvalidArguments) as refused:
        of(task).prepare(("x", "y"), {}, keyring)
    assert len(refused.value.problems) == 2


def test_resources_are_no_arguments_wherever_they_stand(keyring: Keyring) -> None:
    def task(db: Session, user_id: int, *rest: int, run: Session, **more: str) -> None: ...

    arguments = of(task)
    assert arguments.resources == {"db": Session, "run": Session}
    call = arguments.prepare((1, 2, 3), {"note": "x"}, keyring)
    assert call == ((1, 2, 3), {"note": "x"})
    db, run = Session(), Session()
    full, named = arguments.merge(*call, {"db": db, "run": run})
    assert full == (db, 1, 2, 3)
    assert named == {"run": run, "note": "x"}


def test_defaults_stay_with_the_task(keyring: Keyring) -> None:
    def task(a: int, b: int = 2) -> None: ...

    assert of(task).prepare((1,), {}, keyring) == ((1,), {})


def test_secrets_are_sealed_in_the_message_and_open_in_the_worker(keyring: Keyring) -> None:
    """Mistake 8: the reset token was a plain argument."""

    def task(email: str, token: Secret[str]) -> None: ...

    arguments = of(task)
    args, kwargs = arguments.prepare(("a@b.c", "open sesame"), {}, keyring)
    assert "sesame" not in str((args, kwargs))
    assert is_sealed(args[1])
    opened: list[str] = []
    assert arguments.restore(args, kwargs, keyring, opened) == (("a@b.c", "open sesame"), {})
    assert opened == ["open sesame"]


def test_a_sealed_secret_may_be_sent_on(keyring: Keyring) -> None:
    def task(token: Secret[str]) -> None: ...

    arguments = of(task)
    once = arguments.prepare(("open sesame",), {}, keyring)
    again = arguments.prepare(*once, keyring)
    assert arguments.restore(*again, keyring) == (("open sesame",), {})


def test_a_bad_secret_is_not_quoted_in_the_error(keyring: Keyring) -> None:
    def task(pin: Secret[int]) -> None: ...

    with pytest.raises(InvalidArguments) as refused:
        of(task).prepare(("hunter2",), {}, keyring)
    assert "hunter2" not in str(refused.value)


def test_a_secret_sealed_under_an_older_name_of_the_task_opens(keyring: Keyring) -> None:
    def task(token: Secret[str]) -> None: ...

    old = Arguments("old", task)
    new = Arguments("new", task, aliases=("old",))
    assert new.restore(*old.prepare(("x" * 8,), {}, keyring), keyring) == (("x" * 8,), {})
    with pytest.raises(SecretError):
        Arguments("other", task).restore(*old.prepare(("x" * 8,), {}, keyring), keyring)


def test_pydantic_secrets_are_refused_with_advice() -> None:
    def task(token: SecretStr) -> None: ...

    with pytest.raises(ConfigurationError, match=r"Secret\[str\]"):
        of(task)


def test_a_type_that_cannot_be_sent_is_refused_with_advice() -> None:
    def task(socket: object, thing: Keyring) -> None: ...

    with pytest.raises(ConfigurationError, match=r"app\.provide"):
        of(task)
