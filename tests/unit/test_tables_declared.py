"""What is said of an import: rows and their reasons, thresholds, mistakes in the declaration."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from errands import ConfigurationError
from errands.kits.tables import Counts, FakeTarget, Import, Limits, Reason, Threshold
from errands.kits.tables.checking import Checker, Row
from errands.kits.tables.raw import RawRow


class Cadet(BaseModel):
    cadet_id: str = Field(pattern=r"^C\d+$")
    name: str = Field(min_length=1)
    grade: Decimal | None = None
    pin: SecretStr | None = None


def check(checker: Checker[Any], **values: Any) -> Row | list[Reason]:
    return checker(RawRow(2, values))


def test_every_reason_of_a_row() -> None:
    reasons = check(Checker(Cadet, ("cadet_id",)), cadet_id="x" * 200, grade="good")
    assert isinstance(reasons, list)
    assert [(one.field, one.value) for one in reasons] == [
        ("cadet_id", "x" * 79 + "…"), ("name", None), ("grade", "good"),
    ]  # fmt: skip
    assert reasons[1].message == "Field required"


def test_the_words_of_an_applications_validator_are_told_as_they_are() -> None:
    class Person(BaseModel):
        email: str

        @field_validator("email")
        @classmethod
        def _is_address(cls, value: str) -> str:
            raise ValueError("no address")

    [reason] = check(Checker(Person, ("email",)), email="x")
    assert isinstance(reason, Reason)
    assert (reason.field, reason.message) == ("email", "no address")


def test_a_good_row_knows_what_the_file_gave() -> None:
    row = check(Checker(Cadet, ("cadet_id",)), cadet_id="C1", name="Ann", pin="1234")
    assert row == Row(
        2,
        ("C1",),
        {"cadet_id": "C1", "name": "Ann", "grade": None, "pin": "1234"},
        frozenset({"cadet_id", "name", "pin"}),
    )


def test_secrets_are_in_no_reason() -> None:
    class Person(BaseModel):
        email: str
        password: str = Field(max_length=12)
        pin: SecretStr = Field(max_length=4)

        @field_validator("email")
        @classmethod
        def _is_address(cls, value: str) -> str:
            raise ValueError(f"{value} is no address, says hunter2hunter2")

    reasons = check(
        Checker(Person, ("email",), secret=["password"]), email="x", password="hunter2hunter2", pin="12345"
    )
    assert isinstance(reasons, list)
    assert "hunter2" not in str(reasons)
    assert "12345" not in str(reasons)
    assert [(one.field, one.value) for one in reasons] == [
        ("email", "x"),
        ("password", "***"),
        ("pin", "***"),
    ]


def test_a_rule_of_the_application() -> None:
    checker = Checker(
        Cadet, ("cadet_id",), check=lambda row: "no such cadet" if row.cadet_id == "C9" else None
    )
    assert check(checker, cadet_id="C9", name="Ann") == [Reason(None, None, "no such cadet")]
    assert isinstance(check(checker, cadet_id="C8", name="Ann"), Row)


def test_values_that_are_made_of_a_row() -> None:
    checker = Checker(
        Cadet, ("cadet_id",), values=lambda row: {"cadet_id": row.cadet_id, "label": row.name.upper()}
    )
    row = check(checker, cadet_id="C1", name="Ann")
    assert isinstance(row, Row)
    assert (row.values["label"], row.given) == ("ANN", frozenset({"cadet_id", "label"}))


def test_models_with_aliases_are_fed_by_their_names() -> None:
    class Aliased(BaseModel):
        model_config = ConfigDict(populate_by_name=False)
        cadet_id: int = Field(alias="cadetId")

    assert isinstance(check(Checker(Aliased, ("cadet_id",)), cadet_id="7"), Row)
    reasons = check(Checker(Aliased, ("cadet_id",)), cadet_id="x")
    assert isinstance(reasons, list)
    assert reasons[0].field == "cadet_id"


def test_a_key_that_is_empty_is_refused() -> None:
    class Loose(BaseModel):
        code: str | None = None

    assert check(Checker(Loose, ("code",))) == [Reason(None, None, "code tells rows apart, and is empty")]


@pytest.mark.parametrize(
    ("counts", "before", "why"),
    [
        (Counts(rows=1000, updated=200), 1000, None),
        (Counts(rows=1000, updated=201), 1000, r"201 of 1,000 existing rows would change \(20%\)"),
        (Counts(rows=10, updated=10), 10, None),
        (Counts(rows=11, updated=11), 11, r"11 of 11 existing rows would change \(100%\)"),
        (Counts(rows=100, refused=20), 0, None),
        (
            Counts(rows=100, refused=21),
            0,
            r"21 of 100 rows are refused \(21%\); more than 20% are not let through",
        ),
        (Counts(rows=1000, created=1000), 10, None),
    ],
)
def test_thresholds(counts: Counts, before: int, why: str | None) -> None:
    found = Threshold().exceeded(counts, before)
    assert (found is None) if why is None else re.search(why, found or "") is not None


def test_thresholds_of_ones_own() -> None:
    counts = Counts(rows=100, created=60, updated=40, refused=100)
    assert Threshold(changed=None, refused=None).exceeded(counts, 40) is None
    assert "60 of 100 rows would be new (60%)" in str(
        Threshold(changed=None, refused=None, created=0.5).exceeded(counts, 40)
    )
    assert "1 of 1 rows" in str(Threshold(least=0).exceeded(Counts(rows=1, refused=1), 0))
    for wrong in ({"changed": 2}, {"refused": -0.1}, {"created": 1.5}, {"least": -1}):
        with pytest.raises(ConfigurationError, match=r"tables\.Threshold"):
            Threshold(**wrong)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"key": "number"}, "Cadet has no field 'number'; it has cadet_id, name, grade, pin"),
        ({"key": ()}, "name the field that tells rows apart"),
        ({"secret": ["pn"]}, "Cadet has no field 'pn'"),
        ({"mode": "replace"}, "mode 'replace' is none of"),
        ({"unknown": "keep"}, "unknown='keep'"),
        ({"chunk": 0}, "chunk=0"),
        ({"aliases": {"rank": ["Rank"]}}, "no such field"),
    ],
)
def test_mistakes_in_a_declaration_are_told_at_once(said: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        Import("cadets", Cadet, **{"key": "cadet_id", "target": FakeTarget("cadet_id"), **said})


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tables.Limits\(rows=0\)"):
        Limits(rows=0)
