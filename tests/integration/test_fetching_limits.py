"""The limits of a fetch: how much, how long, of what kind, from which answers."""

import asyncio
import gzip
import io
import itertools
import os
import signal
import socket
import threading
import tracemalloc
import zipfile

import pytest

from errands.core.errors import Discard
from errands.fetching import (
    Fetcher,
    FetchFailed,
    FetchLimits,
    FetchRefused,
    Guard,
    TooLarge,
    WrongType,
)
from processes import until
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
    ids=["no gzip", "cut off", "wrong checksum", "something behind it"],
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
