"""Fetching over real sockets: what comes, and what does not."""

import asyncio
import gzip
import io
import itertools
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import tracemalloc
import zipfile
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
    TooLarge,
    WrongType,
)
from processes import until
from tls import make_certificate
from web import never, response, slowly, web

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


# -- how much


async def test_what_says_it_is_too_large_is_not_read(site):
    site.pages["/"] = slowly(iter([b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n"]), seconds=60)
    with pytest.raises(TooLarge, match="1001 bytes; 1000 are allowed"):
        await fetcher_of(site, max_bytes=1000).afetch(site.url("/"))


async def test_an_endless_body_is_left(site):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    for way in ("memory", "file"):
        site.pages["/"] = slowly(itertools.chain([head], itertools.repeat(b"x" * 65536)), seconds=0)
        site.left.clear()
        with pytest.raises(TooLarge, match="1000000"):
            if way == "memory":
                await fetcher_of(site, max_bytes=1_000_000).afetch(site.url("/"))
            else:
                async with fetcher_of(site, max_bytes=1_000_000).adownload(site.url("/")):
                    pass
        until(site.left.is_set, what="the server sees that nobody reads any more")


async def test_exactly_what_is_allowed_comes(site):
    site.pages["/"] = response(b"x" * 1000)
    assert len((await fetcher_of(site, max_bytes=1000).afetch(site.url("/"))).data) == 1000
    with pytest.raises(TooLarge):
        await fetcher_of(site, max_bytes=999).afetch(site.url("/"))


def packed(data, encoding="gzip", content_type="text/plain"):
    return response(data, content_type, headers={"Content-Encoding": encoding})


async def test_what_is_packed_is_unpacked(site, fetcher):
    text = b"line\n" * 100_000
    site.pages["/one"] = packed(gzip.compress(text))
    site.pages["/two"] = packed(gzip.compress(text[:7]) + gzip.compress(text[7:]) + b"\0" * 9, "x-gzip")
    site.pages["/empty"] = packed(b"")
    for path in ("/one", "/two"):
        assert (await fetcher.afetch(site.url(path))).data == text
    assert (await fetcher.afetch(site.url("/empty"))).data == b""


async def test_a_bomb_is_measured_unpacked_and_costs_no_memory(site):
    bomb = gzip.compress(bytes(300_000_000))
    assert len(bomb) < 400_000
    site.pages["/"] = packed(bomb, content_type="application/octet-stream")
    small = fetcher_of(site, max_bytes=2_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="2000000"):
            await small.afetch(site.url("/"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    with pytest.raises(TooLarge):
        async with small.adownload(site.url("/")):
            pass


async def test_a_bomb_inside_a_bomb_is_not_opened(site):
    site.pages["/"] = packed(gzip.compress(gzip.compress(bytes(100_000_000))), "gzip, gzip")
    with pytest.raises(FetchRefused, match="'gzip, gzip', which was not asked for"):
        await fetcher_of(site).afetch(site.url("/"))


async def test_endless_members_that_hold_nothing(site):
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
    empty = gzip.compress(b"") * 1000
    site.pages["/"] = slowly(itertools.chain([head], itertools.repeat(empty)), seconds=0)
    with pytest.raises(TooLarge):
        await fetcher_of(site, max_bytes=100_000).afetch(site.url("/"))


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"no gzip at all", "broken"), (gzip.compress(b"x" * 1000)[:-9], "ends too early"),
     (gzip.compress(b"x")[:-4] + b"\1\2\3\4", "broken"), (gzip.compress(b"x") + b"rubbish", "broken")],
)  # fmt: skip
async def test_packed_bytes_that_are_broken_may_come_whole_the_next_time(site, fetcher, data, text):
    site.pages["/"] = packed(data)
    with pytest.raises(FetchFailed, match=text):
        await fetcher.afetch(site.url("/"))


async def test_a_way_of_packing_that_was_not_asked_for(site, fetcher):
    site.pages["/"] = packed(b"\x0b\x02\x80hello\x03", "br")
    with pytest.raises(FetchRefused, match="'br'"):
        await fetcher.afetch(site.url("/"))


# -- how long


async def test_a_server_that_says_nothing(site):
    site.pages["/"] = never
    with pytest.raises(FetchFailed, match=r"did not begin to answer within 0\.3 s"):
        await fetcher_of(site, first_byte=0.3).afetch(site.url("/"))
    until(site.left.is_set, what="the connection is closed")


async def test_a_head_that_comes_letter_by_letter(site):
    letters = itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"a"))
    site.pages["/"] = slowly(letters)
    with pytest.raises(FetchFailed, match="did not begin to answer"):
        await fetcher_of(site, first_byte=0.3).afetch(site.url("/"))


async def test_a_head_without_end(site):
    site.pages["/"] = slowly(itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"a" * 4096)), 0)
    with pytest.raises(FetchFailed, match="no answer"):
        await fetcher_of(site).afetch(site.url("/"))


async def test_a_body_that_comes_letter_by_letter(site):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    site.pages["/"] = slowly(itertools.chain([head], itertools.repeat(b"a")))
    with pytest.raises(FetchFailed, match=r"not all there within 0\.5 s"):
        await fetcher_of(site, total=0.5).afetch(site.url("/"))


async def test_redirects_do_not_buy_time(site):
    async def wait_and_redirect(writer):
        await slowly(iter([b""]), 0.2)(writer)
        writer.write(response(status=302, headers={"Location": "/"}))

    site.pages["/"] = wait_and_redirect
    with pytest.raises(FetchFailed, match=r"not all there within 0\.5 s"):
        await fetcher_of(site, total=0.5, redirects=1000).afetch(site.url("/"))


async def test_a_name_service_that_does_not_answer(site):
    async def resolver(_host):
        await asyncio.Event().wait()

    guard = Guard(f"slow.example:{site.port}", resolver=resolver)
    with pytest.raises(FetchFailed, match=r"slow\.example did not begin"):
        await Fetcher(guard, FetchLimits(first_byte=0.2)).afetch(site.url("/", "slow.example"))


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="needs signals")
def test_what_is_raised_from_outside_ends_the_waiting(site):
    """As a soft time limit is, in a task that is plain code."""

    class Limit(Exception): ...

    def interrupt(*_):
        raise Limit

    site.pages["/"] = never
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:

        def strike():
            until(lambda: site.asked, what="the request")
            os.kill(os.getpid(), signal.SIGUSR1)

        threading.Thread(target=strike).start()
        with pytest.raises(Limit):
            fetcher_of(site).fetch(site.url("/"))
    finally:
        signal.signal(signal.SIGUSR1, before)
    until(site.left.is_set, what="the connection is closed")


# -- what


def office_file():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return data.getvalue()


XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@pytest.mark.parametrize(
    ("claim", "data", "types", "kind"),
    [
        ("image/png", PNG, ("image/*",), "image/png"),
        ("IMAGE/PNG; q=1", PNG, ("image/png",), "image/png"),
        ("image/jpeg", PNG, ("image/*",), "image/png"),
        ("image/jpg", b"\xff\xd8\xff\xe0", ("image/jpeg",), "image/jpeg"),
        ("application/octet-stream", PNG, ("image/*",), "image/png"),
        ("", PNG, ("image/*",), "image/png"),
        ("rubbish", b"RIFF\0\0\0\0WEBPVP8 ", ("image/webp",), "image/webp"),
        ("application/pdf", b"%PDF-1.7\n", ("application/pdf", "image/*"), "application/pdf"),
        ("text/csv", b"a,b\n1,2\n", ("text/csv",), "text/csv"),
        ("text/csv", "\ufeffä;ö\n".encode("utf-16"), ("text/csv",), "text/csv"),
        ("text/csv", b"BMX;MZ\n1;2\n", ("text/csv",), "text/csv"),
        ("application/json", b'{"a": 1}', ("application/json",), "application/json"),
        ("image/svg+xml", b"<?xml version='1.0'?><svg/>", ("image/svg+xml",), "image/svg+xml"),
        ("text/xml", b"\xef\xbb\xbf <?xml version='1.0'?><a/>", ("application/xml",), "application/xml"),
        (XLSX, office_file(), (XLSX, "text/csv"), XLSX),
        ("text/plain", HTML, ("text/plain",), "text/plain"),
        ("text/html", HTML, ("*/*",), "text/html"),
        ("application/octet-stream", b"anything", ("*/*",), "application/octet-stream"),
        ("audio/mp4", b"\0\0\0\x20ftypM4A ", ("audio/*",), "audio/mp4"),
    ],
)  # fmt: skip
async def test_what_it_is_and_what_is_wanted(site, claim, data, types, kind):
    site.pages["/"] = response(data, claim)
    found = await fetcher_of(site, types=types).afetch(site.url("/"))
    assert (found.content_type, found.data) == (kind, data)


@pytest.mark.parametrize(
    ("claim", "data", "types", "text"),
    [
        ("text/html", HTML, ("image/*",), r"it is text/html; wanted is image/\*"),
        ("image/png", HTML, ("image/*",), "it is text/html, though its server says image/png"),
        ("image/png", b"just words", ("image/*",), "does not begin like one"),
        ("image/png", b"", ("image/*",), "does not begin like one"),
        ("image/png", b"%PDF-1.7", ("image/*",), "it is application/pdf, though"),
        ("text/csv", HTML, ("text/csv",), "it is text/html, though"),
        ("text/csv", b"PK\x03\x04", ("text/csv",), "it is application/zip, though"),
        ("text/csv", b"a,b\0\n", ("text/csv",), "does not begin like one"),
        ("text/plain", b"MZ\x90\0", ("text/*",), "portable-executable, though"),
        ("application/pdf", b"\x7fELF\2\1", ("application/pdf",), "x-executable, though"),
        ("application/pdf", b"%PDF", ("application/pdf",), "does not begin like one"),
        ("", b"just words", ("image/*", "text/csv"), "it is application/octet-stream; wanted"),
        ("image/svg+xml", PNG, ("image/svg+xml",), "it is image/png, though"),
    ],
)  # fmt: skip
async def test_what_is_not_wanted_or_not_what_it_is_said_to_be(site, claim, data, types, text):
    site.pages["/"] = response(data, claim)
    with pytest.raises(WrongType, match=text):
        await fetcher_of(site, types=types).afetch(site.url("/"))
    with pytest.raises(WrongType, match=text):
        async with fetcher_of(site, types=types).adownload(site.url("/")):
            pass


async def test_a_wrong_type_is_refused_by_the_head_alone(site):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 1000\r\n\r\n"
    site.pages["/"] = slowly(iter([head]), seconds=60)
    with pytest.raises(WrongType):
        await fetcher_of(site, types=("image/*",)).afetch(site.url("/"))


# -- what servers say


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 410, 451])
async def test_what_would_be_refused_again(site, fetcher, status):
    site.pages["/"] = response(status=status)
    with pytest.raises(FetchRefused, match=str(status)) as caught:
        await fetcher.afetch(site.url("/"))
    assert caught.value.status == status


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_pass(site, fetcher, status):
    site.pages["/"] = response(status=status, headers={"Retry-After": "120"})
    with pytest.raises(FetchFailed, match=str(status)) as caught:
        await fetcher.afetch(site.url("/"))
    assert (caught.value.status, caught.value.retry_after) == (status, 120)
    assert not isinstance(caught.value, Discard)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b""]
)
async def test_what_is_no_whole_answer(site, fetcher, answer):
    site.pages["/"] = answer
    with pytest.raises(FetchFailed, match="no answer, or not all of it"):
        await fetcher.afetch(site.url("/"))


async def test_nobody_listens():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(FetchFailed, match="no answer"):
            await Fetcher(Guard(f"127.0.0.1:{port}")).afetch(f"http://127.0.0.1:{port}/")
