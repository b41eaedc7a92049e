"""What a fetcher does, the real one and the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from errands.fetching import (
    AddressRefused,
    FakeFetcher,
    Fetcher,
    FetchFailed,
    FetchLimits,
    FetchRefused,
    Guard,
    RedirectRefused,
    TooLarge,
    WrongType,
)
from web import response, web

PNG = b"\x89PNG\r\n\x1a\n" + bytes(600)


@dataclass
class Place:
    """A fetcher, and a way to put pages where it looks."""

    fetcher: Fetcher
    root: str
    put: Callable[..., None]


@pytest.fixture(params=["real", "fake"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "fake":
        fake = FakeFetcher(allow_http=True)

        def add(
            path: str, data: bytes = b"", kind: str = "text/plain", status: int = 200, to: str = ""
        ) -> None:
            fake.add(f"http://example.com{path}", data, kind, status=status, location=to or None)

        yield Place(fake, "http://example.com", add)
        return
    with web() as site:

        def put(
            path: str, data: bytes = b"", kind: str = "text/plain", status: int = 200, to: str = ""
        ) -> None:
            headers = {"Location": to} if to else {}
            site.pages[path] = response(data, kind, status=status, headers=headers)

        yield Place(Fetcher(Guard(f"127.0.0.1:{site.port}")), site.url(""), put)


async def test_into_memory(place: Place) -> None:
    place.put("/a.png", PNG, "image/png")
    found = await place.fetcher.afetch(f"{place.root}/a.png")
    assert (found.url, found.content_type, found.data) == (f"{place.root}/a.png", "image/png", PNG)


def test_in_plain_code(place: Place) -> None:
    place.put("/a.png", PNG, "image/png")
    assert place.fetcher.fetch(f"{place.root}/a.png").data == PNG
    with place.fetcher.download(f"{place.root}/a.png") as found:
        assert found.file.read() == PNG


async def test_into_a_file(place: Place) -> None:
    place.put("/a.png", PNG, "image/jpeg")
    async with place.fetcher.adownload(f"{place.root}/a.png") as found:
        assert (found.content_type, found.size, found.file.read()) == ("image/png", len(PNG), PNG)
    assert found.file.closed


async def test_by_a_redirect(place: Place) -> None:
    place.put("/old", status=302, to="/new")
    place.put("/new", b"hello")
    assert (await place.fetcher.afetch(f"{place.root}/old")).url == f"{place.root}/new"
    place.put("/loop", status=302, to="/loop")
    with pytest.raises(RedirectRefused):
        await place.fetcher.afetch(f"{place.root}/loop")


@pytest.mark.parametrize(
    "inward", ["http://10.0.0.1/", "//169.254.169.254/", "https://[::1]/", "file:///etc/passwd"]
)
async def test_inward(place: Place, inward: str) -> None:
    place.put("/in", status=302, to=inward)
    with pytest.raises(AddressRefused):
        await place.fetcher.afetch(f"{place.root}/in")
    if not inward.startswith("//"):
        with pytest.raises(AddressRefused):
            await place.fetcher.afetch(inward)


async def test_what_is_not_allowed(place: Place) -> None:
    place.put("/a", b"x" * 1000)
    with pytest.raises(TooLarge):
        await place.fetcher.afetch(f"{place.root}/a", FetchLimits(max_bytes=999))
    with pytest.raises(WrongType):
        await place.fetcher.afetch(f"{place.root}/a", FetchLimits(types=("image/*",)))
    place.put("/page", b"<html>", "image/png")
    with pytest.raises(WrongType):
        await place.fetcher.afetch(f"{place.root}/page", FetchLimits(types=("image/*",)))


@pytest.mark.parametrize(
    ("status", "error"), [(404, FetchRefused), (410, FetchRefused), (429, FetchFailed), (503, FetchFailed)]
)
async def test_what_servers_say(place: Place, status: int, error: type[FetchRefused | FetchFailed]) -> None:
    place.put("/a", status=status)
    with pytest.raises(error) as caught:
        await place.fetcher.afetch(f"{place.root}/a")
    assert caught.value.status == status
    with pytest.raises(FetchRefused):
        await place.fetcher.afetch(f"{place.root}/nothing")
