"""Fetching over real sockets: what comes, and what does not."""

import os
import ssl
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from errands.core.errors import Discard
from errands.fetching import (
    AddressRefused,
    Fetcher,
    FetchFailed,
    FetchLimits,
    FetchRefused,
    Guard,
    GuardedTransport,
    RedirectRefused,
)
from tls import make_certificate
from web import response, web

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 600
HTML = b"<!DOCTYPE html><title>Sign in</title>"


@pytest.fixture
def site():
    with web() as site:
        yield site


def fetcher_of(*sites, **limits):
    return Fetcher(Guard([f"127.0.0.1:{site.port}" for site in sites]), FetchLimits(**limits))


@pytest.fixture
def fetcher(site):
    return fetcher_of(site)


# -- what comes


async def test_bytes_their_type_and_where_they_were(site, fetcher):
    site.pages["/a.png?x=1"] = response(PNG, "image/png; charset=binary")
    found = await fetcher.afetch(site.url("/a.png?x=1#there"))
    assert (found.data, found.content_type, found.url) == (PNG, "image/png", site.url("/a.png?x=1"))
    ((path, headers),) = site.asked
    assert path == "/a.png?x=1"
    assert headers.keys() == {"host", "accept", "accept-encoding", "user-agent"}
    assert headers["host"] == f"127.0.0.1:{site.port}"


def test_plain_code_gets_the_same(site, fetcher):
    site.pages["/a.png"] = response(PNG, "image/png")
    assert fetcher.fetch(site.url("/a.png")).data == PNG
    with fetcher.download(site.url("/a.png")) as found:
        assert (found.size, found.content_type, found.file.read()) == (len(PNG), "image/png", PNG)
    assert found.file.closed
    with pytest.raises(FetchRefused):
        fetcher.fetch(site.url("/b.png"))


async def test_plain_code_may_run_where_a_loop_runs(site, fetcher):
    site.pages["/a.png"] = response(PNG, "image/png")
    assert fetcher.fetch(site.url("/a.png")).data == PNG


async def test_a_download_is_a_file_without_a_name(site, fetcher, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = os.urandom(3_000_000)
    site.pages["/big"] = response(data, "application/octet-stream")
    async with fetcher.adownload(site.url("/big")) as found:
        assert found.size == len(data)
        assert found.file.read() == data
        assert list(tmp_path.iterdir()) == []  # nothing that a killed process could leave
    assert found.file.closed


def unnamed_files():
    targets = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sorted(target for target in targets if target.endswith("(deleted)"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
async def test_no_file_stays_open_after_a_failure(site, fetcher):
    before = unnamed_files()
    site.pages["/short"] = response(b"x" * 5)[:-3]
    with pytest.raises(FetchFailed):
        async with fetcher.adownload(site.url("/short")):
            pass
    with pytest.raises(RuntimeError, match="of the block"):
        site.pages["/whole"] = response(b"x" * 5)
        async with fetcher.adownload(site.url("/whole")):
            raise RuntimeError("of the block")
    assert unnamed_files() == before


async def test_an_answer_without_length_and_one_in_chunks(site, fetcher):
    site.pages["/open"] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
    site.pages["/chunks"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    )
    assert (await fetcher.afetch(site.url("/open"))).data == b"hello"
    assert (await fetcher.afetch(site.url("/chunks"))).data == b"hello"


async def test_nothing_of_the_environment_is_used(site, fetcher, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    site.pages["/"] = response(b"hello")
    assert (await fetcher.afetch(site.url("/"))).data == b"hello"


# -- where it may come from


async def test_an_inner_address_gets_no_connection(site):
    for url in (site.url("/"), site.url("/", "localhost"), site.url("/", "2130706433"),
                site.url("/", "[::ffff:127.0.0.1]"), site.url("/", scheme="https")):  # fmt: skip
        with pytest.raises(AddressRefused) as caught:
            await Fetcher(Guard(allow_http=True)).afetch(url)
        assert isinstance(caught.value, Discard)
    assert site.asked == []


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.1:{inner}/admin", "//127.0.0.1:{inner}/", "http://localhost:{inner}/",
     "http://0x7f000001:{inner}/", "http://[::1]:{inner}/", "http://169.254.169.254/latest/meta-data/",
     "file:///etc/passwd", "gopher://127.0.0.1:{inner}/", "http://user:pw@example.com/",
     "http://127.0.0.1:{inner}\\@example.com/", "https://10.0.0.1/", "http://[::ffff:127.0.0.1]:{inner}/"],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_inward_is_refused(site, fetcher, location, status):
    with web() as inner:
        site.redirect("/", location.format(inner=inner.port), status)
        with pytest.raises(AddressRefused):
            await fetcher.afetch(site.url("/"))
        assert inner.asked == []


async def test_redirects_are_followed_to_where_one_may_go(site):
    with web() as other:
        site.redirect("/old", "/new?x=1")
        site.redirect("/new?x=1", f"http://127.0.0.1:{other.port}/there", 308)
        other.pages["/there"] = response(b"hello")
        found = await fetcher_of(site, other).afetch(site.url("/old"))
        assert (found.data, found.url) == (b"hello", other.url("/there"))
        assert other.asked[0][1]["host"] == f"127.0.0.1:{other.port}"


async def test_redirects_end(site):
    site.redirect("/loop", "/loop")
    with pytest.raises(RedirectRefused, match="more than 3"):
        await fetcher_of(site, redirects=3).afetch(site.url("/loop"))
    assert site.paths == ["/loop"] * 4
    with pytest.raises(RedirectRefused, match="more than 0"):
        await fetcher_of(site, redirects=0).afetch(site.url("/loop"))


async def test_a_redirect_to_nowhere(site, fetcher):
    site.pages["/"] = response(status=302)
    with pytest.raises(RedirectRefused, match="nowhere"):
        await fetcher.afetch(site.url("/"))


async def test_https_is_not_given_up_on_the_way(site, tmp_path):
    certificate = make_certificate(tmp_path)
    with web(certificate=certificate) as secure:
        secure.redirect("/", site.url("/"))
        secure.pages["/direct"] = response(b"hello")
        guard = Guard(f"127.0.0.1:{secure.port},127.0.0.1:{site.port}")
        trusting = Fetcher(guard, tls=ssl.create_default_context(cafile=certificate))
        with pytest.raises(RedirectRefused, match="from https to http"):
            await trusting.afetch(secure.url("/", scheme="https"))
        assert site.asked == []
        assert (await trusting.afetch(secure.url("/direct", scheme="https"))).data == b"hello"
        with pytest.raises(FetchFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await Fetcher(guard).afetch(secure.url("/direct", scheme="https"))


class Names:
    """A name service that gives one answer after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    async def __call__(self, host):
        self.asked.append(host)
        return [self.answers.pop(0)] if len(self.answers) > 1 else [self.answers[0]]


@pytest.mark.skipif(sys.platform != "linux", reason="needs more than one loopback address")
async def test_the_address_that_was_checked_is_called_though_the_name_has_another_by_now(site):
    with web(host="127.0.0.2", port=site.port) as second:
        site.pages["/"], second.pages["/"] = response(b"checked"), response(b"rebound")
        names = Names("127.0.0.1", "127.0.0.2")
        guard = Guard(f"rebind.example:{site.port}", resolver=names)
        found = await Fetcher(guard).afetch(site.url("/", "rebind.example"))
        assert found.data == b"checked"
        assert names.asked == ["rebind.example"]
        assert site.asked[0][1]["host"] == f"rebind.example:{site.port}"
        assert second.asked == []


async def test_a_name_that_turns_inward_after_the_check_is_called_at_its_public_address():
    called = []

    def carry(request):
        called.append((request.url.host, request.headers["host"], request.extensions["sni_hostname"]))
        return httpx.Response(200)

    names = Names("93.184.215.14", "127.0.0.1")
    transport = GuardedTransport(Guard(resolver=names), httpx.MockTransport(carry))
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        await client.get("https://rebind.example/")
        assert called == [("93.184.215.14", "rebind.example", "rebind.example")]
        with pytest.raises(AddressRefused, match=r"stands for 127\.0\.0\.1"):
            await client.get("https://rebind.example/")
    assert len(called) == 1


async def test_each_redirect_is_looked_up_anew(site):
    names = Names("127.0.0.1")
    site.redirect("/", f"https://inner.example:{site.port}/")
    fetcher = Fetcher(Guard(f"127.0.0.1:{site.port}", resolver=names))
    with pytest.raises(AddressRefused, match=r"inner\.example stands for 127\.0\.0\.1"):
        await fetcher.afetch(site.url("/"))
    assert names.asked == ["inner.example"]
    assert site.paths == ["/"]
