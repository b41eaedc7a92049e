"""Which arguments leave a message, and how they come back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from errands import PayloadLost
from errands.core.payloads import FIELD, Reference, join, payload_bytes, split, without_reference


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


BIG, SMALL = "x" * 5000, "y" * 500


def test_the_largest_leave_until_the_rest_is_small_enough() -> None:
    found = split("t", "k", (1, BIG, SMALL), {"a": BIG * 2, "b": 2}, 6500, encode)
    assert found.args == (1, BIG, SMALL)
    assert found.kwargs["b"] == 2
    assert found.kwargs["a"].startswith("offloaded: 10,002 bytes, sha256 ")
    reference = Reference.found_in(found.kwargs)
    assert reference is not None
    assert (reference.args, reference.kwargs, reference.bytes) == ((), ("a",), len(found.content))

    found = split("t", "k", (1, BIG, SMALL), {"a": BIG * 2, "b": 2}, 2000, encode)
    assert (found.args[0], found.args[2]) == (1, SMALL)
    assert found.args[1].startswith("offloaded: 5,002 bytes")
    assert len(encode(found.args)) + len(encode(found.kwargs)) <= 2000


def test_what_left_comes_back_where_it_was() -> None:
    args, kwargs = (1, BIG, [BIG, None, 1.5]), {"a": {"deep": BIG}, "b": 2}
    found = split("t", "k", args, kwargs, 1500, encode)
    over_the_wire = json.loads(encode([found.args, found.kwargs]))
    reference = Reference.found_in(over_the_wire[1])
    assert reference is not None
    assert join("t", (), *over_the_wire, reference, found.content) == (args, kwargs)
    assert join("new", ("t",), *over_the_wire, reference, found.content) == (args, kwargs)


def test_equal_values_leave_equal_notes() -> None:
    """So that a rule that compares arguments still can."""
    notes = [split("t", key, (BIG,), {}, 1000, encode).args[0] for key in ("one", "two")]
    assert notes[0] == notes[1]
    assert split("t", "k", (BIG + "!",), {}, 1000, encode).args[0] != notes[0]


def test_what_has_to_stay_stays() -> None:
    found = split("t", "k", (BIG,), {"a": BIG, "b": BIG}, 12_000, encode, stay={0, "a"})
    assert (found.args, found.kwargs["a"]) == ((BIG,), BIG)
    assert found.kwargs["b"].startswith("offloaded")


def test_content_that_is_gone_changed_or_anothers_is_refused() -> None:
    found = split("t", "k", (BIG,), {}, 1000, encode)
    reference = Reference.found_in(found.kwargs)
    assert reference is not None
    with pytest.raises(PayloadLost, match=r"t: its arguments were kept apart .* and are gone: send it again"):
        join("t", (), found.args, found.kwargs, reference, None)
    with pytest.raises(PayloadLost, match="are not what was kept"):
        join("t", (), found.args, found.kwargs, reference, found.content.replace(b"x", b"z"))
    with pytest.raises(PayloadLost, match="are those of another task"):
        join("u", (), found.args, found.kwargs, reference, found.content)


@pytest.mark.parametrize(
    "told",
    [None, "k", {}, {"key": "k"}, {"key": 1, "sha256": "", "bytes": 1, "args": [], "kwargs": []},
     {"key": "k", "sha256": "", "bytes": 1, "args": 0, "kwargs": []}],
)  # fmt: skip
def test_what_is_no_reference_is_an_argument_like_any_other(told: Any) -> None:
    assert Reference.found_in({FIELD: told}) is None
    assert Reference.found_in({}) is None


def test_people_see_the_notes_and_the_size_and_not_the_key() -> None:
    found = split("t", "k", (), {"a": BIG, "b": 1}, 1000, encode)
    shown = without_reference(found.kwargs)
    assert shown is not None
    assert shown == {"a": found.kwargs["a"], "b": 1}
    assert payload_bytes(found.kwargs) == len(found.content)
    assert (without_reference(None), payload_bytes(None), payload_bytes({"b": 1})) == (None, None, None)
