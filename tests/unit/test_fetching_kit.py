"""The fetcher as a resource, and the fake that stands for it."""

import asyncio

import httpx
import pytest

from errands import ConfigurationError, Errands, Settings, fetching
from errands.fetching import (
    AddressRefused,
    FakeFetcher,
    Fetcher,
    FetchFailed,
    FetchLimits,
    FetchRefused,
    RedirectRefused,
    TooLarge,
    WrongType,
)
from web import response, web


def make(tmp_path, kit, **settings):
    app = Errands("test", settings=Settings(home=tmp_path, inline=True, **settings))
    app.use(kit)
    return app


def test_tasks_of_both_kinds_are_given_it(tmp_path):
    with web() as site:
        site.pages["/a"] = response(b"hello")
        app = make(tmp_path, fetching.kit(), fetch_allow=f"127.0.0.1:{site.port}")

        @app.task(name="plain")
        def plain(url: str, *, fetcher: Fetcher) -> int:
            return len(fetcher.fetch(url).data)

        @app.task(name="asynchronous")
        async def asynchronous(url: str, *, fetcher: Fetcher) -> int:
            return len((await fetcher.afetch(url)).data)

        assert plain.delay(site.url("/a")).get() == asynchronous.delay(site.url("/a")).get() == 5
        with pytest.raises(AddressRefused, match="ERRANDS_FETCH_ALLOW"):
            plain.delay("http://localhost:1/").get()


def test_the_kits_limits_are_those_of_calls_that_give_none(tmp_path):
    with web() as site:
        site.pages["/a"] = response(b"hello")
        kit = fetching.kit(limits=FetchLimits(max_bytes=4))
        app = make(tmp_path, kit, fetch_allow=f"127.0.0.1:{site.port}")
        fetcher = app.resources.instance(Fetcher)
        with pytest.raises(TooLarge):
            fetcher.fetch(site.url("/a"))
        assert fetcher.fetch(site.url("/a"), FetchLimits()).data == b"hello"


def test_a_wrong_setting_stops_the_start(tmp_path):
    with pytest.raises(ConfigurationError, match="ERRANDS_FETCH_ALLOW: 'localhost'"):
        make(tmp_path, fetching.kit(), fetch_allow="localhost")


def test_a_name_that_cannot_be_found_may_be_found_later(tmp_path):
    async def nowhere(host):
        raise FetchFailed(f"{host} cannot be found")

    with pytest.raises(FetchFailed):
        Fetcher(fetching.Guard(resolver=nowhere)).fetch("https://nowhere.example/")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_bytes": 0},
        {"total": 0},
        {"first_byte": -1},
        {"redirects": -1},
        {"types": ()},
        {"types": "image/*"},
    ],
)
def test_limits_that_let_nothing_through_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        FetchLimits(**wrong)


@pytest.fixture
def fake():
    return FakeFetcher(FetchLimits(max_bytes=1000, types=("text/plain", "image/*")))


def test_the_fake_judges_as_the_real_one_does(fake):
    fake.add("https://example.com/a", b"hello", "text/plain")
    fake.add("https://example.com/large", b"x" * 1001, "text/plain")
    fake.add("https://example.com/page", b"<html>", "image/png")
    fake.add("https://example.com/moved", status=301, location="/a")
    fake.add("https://example.com/inward", status=301, location="https://10.0.0.1/")
    fake.add("https://example.com/down", status=301, location="http://example.com/a")
    fake.add("https://example.com/busy", status=503)
    fake.add("https://example.com/away", error=httpx.ConnectError("refused"))
    assert fake.fetch("https://example.com/moved").url == "https://example.com/a"
    for path, error in (
        ("large", TooLarge), ("page", WrongType), ("inward", AddressRefused), ("down", RedirectRefused),
        ("busy", FetchFailed), ("away", FetchFailed), ("none", FetchRefused),
    ):  # fmt: skip
        with pytest.raises(error):
            fake.fetch(f"https://example.com/{path}")
    with pytest.raises(AddressRefused):
        fake.fetch("https://127.0.0.1/")
    assert fake.asked[:2] == ["https://example.com/moved", "https://example.com/a"]
    assert "https://10.0.0.1/" not in fake.asked


def test_the_fake_in_an_app(tmp_path, fake):
    fake.add("https://example.com/a", b"hello", "text/plain")
    app = make(tmp_path, fetching.kit(lambda: fake))
    found = asyncio.run(app.resources.instance(Fetcher).afetch("https://example.com/a"))
    assert (found.data, found.content_type) == (b"hello", "text/plain")
