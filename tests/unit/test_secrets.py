"""Sealing, opening, masking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errands.core.errors import ConfigurationError, SecretError
from errands.core.secrets import Keyring, is_sealed, mask, scrub

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RING = Keyring.parse(Keyring.new_key("k1"))


@given(JSON)
def test_what_is_sealed_opens_to_the_same(value: object) -> None:
    sealed = RING.seal(value, "task")
    assert is_sealed(sealed)
    assert RING.open(sealed, "task") == value


def test_the_same_value_never_looks_the_same() -> None:
    assert RING.seal("x", "task") != RING.seal("x", "task")


def test_a_sealed_value_opens_nowhere_else() -> None:
    with pytest.raises(SecretError, match="something else"):
        RING.open(RING.seal("x", "reset"), "newsletter")


def test_a_changed_value_does_not_open() -> None:
    sealed = RING.seal("x", "task")
    flipped = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    with pytest.raises(SecretError):
        RING.open(flipped, "task")


def test_keys_rotate() -> None:
    old = Keyring.new_key("2025")
    sealed = Keyring.parse(old).seal("x", "task")
    both = Keyring.parse(f"{Keyring.new_key('2026')}, {old}")
    assert both.open(sealed, "task") == "x"
    assert both.seal("x", "task").startswith("sealed:v1:2026:")
    with pytest.raises(SecretError, match="'2025'"):
        Keyring.parse(Keyring.new_key("2026")).open(sealed, "task")


@pytest.mark.parametrize("text", ["nocolon", "k1:!!!", "k1:c2hvcnQ=", "bad id:" + "A" * 43 + "="])
def test_keys_that_are_no_keys_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Keyring.parse(text)


def test_no_key_no_seal() -> None:
    with pytest.raises(SecretError, match="ERRANDS_SECRET_KEYS"):
        Keyring.parse("").seal("x", "task")


def test_masking_goes_as_deep_as_the_value() -> None:
    sealed = RING.seal("x", "task")
    value = {"a": [sealed, {"b": (1, f"token={sealed}!")}], "c": "plain"}
    assert mask(value) == {"a": ["***", {"b": (1, "token=***!")}], "c": "plain"}


def test_secrets_are_scrubbed_from_texts() -> None:
    assert scrub("no user for token abcd1234", ["abcd1234"]) == "no user for token ***"
    assert scrub("a cat", ["a"]) == "a cat"


def test_derived_keys_differ_by_purpose() -> None:
    assert RING.derive("links") != RING.derive("cookies")
    assert len(RING.derive("links")) == 32


@pytest.mark.parametrize("text", ["sealed:v1:k1:AAAA", "sealed:v1:k1:" + "A" * 36])
def test_what_is_too_short_to_have_been_sealed_is_damaged(text: str) -> None:
    with pytest.raises(SecretError, match="damaged"):
        Keyring([("k1", bytes(32))]).open(text, "x")
