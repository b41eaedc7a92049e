"""Download links: who can make one, how long it holds, what it names."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.errors import ConfigurationError
from errands.kits.storage import LinkExpired, LinkForged, LinkSigner, key_for
from errands.kits.storage.links import content_disposition, safe_filename

KEY = key_for("exports", "one", ".csv")
OTHER = key_for("exports", "two", ".csv")
SIGNER = LinkSigner(b"k" * 32, "https://school.example/")


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def test_a_link_holds_until_its_last_second_and_then_is_expired_not_forged() -> None:
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        query = query_of(SIGNER.sign(KEY, filename="a.csv", expires_in=24 * 3600))
        now.advance(24 * 3600 - 1)
        assert SIGNER.check(KEY, query).expires_at.timestamp() == now.timestamp() + 1
        now.advance(1)
        with pytest.raises(LinkExpired, match="no longer good"):
            SIGNER.check(KEY, query)


def test_an_expired_link_that_was_also_changed_is_forged() -> None:
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        query = query_of(SIGNER.sign(KEY, filename="a.csv", expires_in=10))
        now.advance(11)
        with pytest.raises(LinkForged):
            SIGNER.check(KEY, query | {"name": "b.csv"})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b.csv"},
        {"owner": "8"},
        {"owner": ""},
        {"expires": "9999999999"},
        {"expires": "٣٣٣٣٣٣٣٣٣٣"},
        {"expires": "-1"},
        {"expires": ""},
        {"expires": "1" * 5000},
        {"signature": ""},
        {"signature": "é"},
        {"signature": "A" * 43},
    ],
)
def test_whatever_is_changed_the_link_is_forged(change: dict[str, str]) -> None:
    query = query_of(SIGNER.sign(KEY, filename="a.csv", expires_in=60, owner="7"))
    assert SIGNER.check(KEY, query).owner == "7"
    with pytest.raises(LinkForged):
        SIGNER.check(KEY, query | change)


@pytest.mark.parametrize("gone", ["name", "owner", "expires", "signature"])
def test_a_part_left_out_makes_it_forged(gone: str) -> None:
    query = query_of(SIGNER.sign(KEY, filename="a.csv", expires_in=60, owner="7"))
    del query[gone]
    with pytest.raises(LinkForged):
        SIGNER.check(KEY, query)


def test_a_link_opens_its_own_file_and_only_with_its_own_key() -> None:
    query = query_of(SIGNER.sign(KEY, filename="a.csv", expires_in=60))
    with pytest.raises(LinkForged):
        SIGNER.check(OTHER, query)
    with pytest.raises(LinkForged):
        SIGNER.check("../../etc/passwd", query)
    with pytest.raises(LinkForged):
        LinkSigner(b"j" * 32, "https://school.example").check(KEY, query)


@given(st.text(max_size=300), st.none() | st.text(max_size=50))
def test_any_name_and_owner_come_back(filename: str, owner: str | None) -> None:
    if owner is not None and not owner.isprintable():
        owner = repr(owner)
    link = SIGNER.check(KEY, query_of(SIGNER.sign(KEY, filename=filename, expires_in=60, owner=owner)))
    assert (link.filename, link.owner) == (safe_filename(filename), owner)


@given(st.text(max_size=400))
def test_a_file_name_is_one_safe_line(filename: str) -> None:
    name = safe_filename(filename)
    assert name
    assert len(name) <= 150
    assert not set('/\\:"\r\n\x00\u202e') & set(name)
    assert name not in {".", ".."}
    header = content_disposition(filename)
    assert header.isascii()
    assert header.isprintable()


def test_a_file_name_keeps_its_script_and_its_ending() -> None:
    assert safe_filename("../../شهادة محمد.pdf") == "_.._شهادة محمد.pdf"
    assert safe_filename("王" * 300 + ".pdf") == "王" * 146 + ".pdf"
    assert safe_filename(" . ") == "download"
    assert content_disposition("Zoë 王.pdf") == (
        "attachment; filename=\"Zo_ _.pdf\"; filename*=UTF-8''Zo%C3%AB%20%E7%8E%8B.pdf"
    )


@pytest.mark.parametrize("seconds", [0, -1, float("-inf")])
def test_a_link_needs_a_future(seconds: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        SIGNER.sign(KEY, filename="a", expires_in=seconds)


def test_a_weak_key_and_a_wrong_address_are_refused_at_start() -> None:
    with pytest.raises(ConfigurationError, match="32"):
        LinkSigner(b"short", "https://school.example")
    with pytest.raises(ConfigurationError, match="base_url"):
        LinkSigner(b"k" * 32, "school.example")
