"""What every storage does alike."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

import clouds
from errands.kits.storage import (
    FileTooLarge,
    FolderStorage,
    InvalidKey,
    LinkSigner,
    S3Storage,
    Storage,
    StoredFileNotFound,
    key_for,
)
from errands.kits.storage.cloudinary import CloudinaryStorage
from errands.kits.storage.fake import MemoryStorage
from errands.kits.storage.sigv4 import Credentials

SIGNER = LinkSigner(b"k" * 32, "https://school.example")

# From a user, a log, a table that somebody changed: none of these may reach the disk.
HOSTILE_KEYS = [
    "",
    "/etc/passwd",
    "../../etc/passwd",
    "2026/01/01/../../../etc/passwd",
    "a/" + "0" * 32 + "/../../../x",
    "0" * 32,
    "a//" + "0" * 32,
    "./" + "0" * 32,
    "a/" + "0" * 31,
    "a/" + "0" * 32 + ".html",
    "a/" + "0" * 32 + ".pdf\n",
    "a/" + "0" * 32 + ".pdf\x00.txt",
    "a/" + "0" * 32 + ".pdf.json",
    "a\\" + "0" * 32,
    "A/" + "0" * 32,
    "ä/" + "0" * 32,
]


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with clouds.s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def cloudinary() -> Iterator[clouds.Cloudinary]:
    with clouds.Cloudinary().serving() as peer:
        yield peer


@pytest.fixture(params=["folder", "memory", "s3", "cloudinary"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    made: Storage
    if request.param == "folder":
        made = FolderStorage(tmp_path / "files", SIGNER)
    elif request.param == "memory":
        made = MemoryStorage(SIGNER)
    elif request.param == "s3":
        url = request.getfixturevalue("s3_url")
        made = S3Storage(
            clouds.BUCKET,
            uuid.uuid4().hex,
            signer=SIGNER,
            endpoint=url,
            credentials=Credentials(*clouds.KEYS.values()),
        )
    else:
        peer = request.getfixturevalue("cloudinary")
        made = CloudinaryStorage(
            peer.name, peer.key, peer.secret, folder=uuid.uuid4().hex, signer=SIGNER, api=peer.url
        )
    yield made
    if isinstance(made, CloudinaryStorage):
        await made.aclose()


async def pieces(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def test_what_was_put_can_be_read(storage: Storage) -> None:
    file = await storage.put(b"%PDF-1.7", content_type="application/pdf", suffix=".pdf")
    assert (file.size, file.content_type) == (8, "application/pdf")
    assert file.sha256 == hashlib.sha256(b"%PDF-1.7").hexdigest()
    assert await storage.info(file.key) == file
    assert await storage.read(file.key) == b"%PDF-1.7"
    assert await storage.exists(file.key)


async def test_a_key_holds_the_day_and_128_random_bits(storage: Storage) -> None:
    made = [(await storage.put(b"", content_type="text/csv", suffix=".csv")).key for _ in range(20)]
    assert len(set(made)) == 20
    assert all(re.fullmatch(r"\d{4}/\d\d/\d\d/[0-9a-f]{32}\.csv", key) for key in made)


async def test_a_large_local_file_goes_in_and_comes_out_in_chunks(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 17)
    source = tmp_path / "export"
    source.write_bytes(data)
    file = await storage.put(source, content_type="application/zip", suffix=".zip")
    chunks = [chunk async for chunk in storage.stream(file.key)]
    assert b"".join(chunks) == data
    assert len(chunks) > 1
    assert file.size == len(data)
    assert source.read_bytes() == data


async def test_a_stream_is_kept_as_it_came(storage: Storage) -> None:
    data = os.urandom(1_000_003)
    file = await storage.put_stream(pieces(data), content_type="text/csv; charset=utf-8", suffix=".csv")
    assert (file.size, file.content_type) == (len(data), "text/csv; charset=utf-8")
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert await storage.info(file.key) == file
    assert await storage.read(file.key) == data
    empty = await storage.put_stream(pieces(b""), content_type="text/plain")
    assert await storage.read(empty.key) == b""


async def test_a_stream_has_as_many_bytes_as_its_limit_and_no_more(storage: Storage) -> None:
    key = storage.key_for("uploads", "seven", ".txt")
    file = await storage.put_stream(pieces(b"x" * 25_000), content_type="text/plain", key=key, limit=25_000)
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield b"y" * 10_000

    with pytest.raises(FileTooLarge, match="25,000 bytes"):
        await storage.put_stream(endless(), content_type="text/plain", key=key, limit=25_000)
    assert asked == 3
    assert await storage.read(key) == b"x" * 25_000
    assert await storage.info(key) == file
    with pytest.raises(ValueError, match="limit=-1"):
        await storage.put_stream(pieces(b"x"), content_type="text/plain", limit=-1)


async def test_a_stream_that_breaks_leaves_the_file_before_it(storage: Storage) -> None:
    key = storage.key_for("uploads", "broken", ".txt")
    await storage.put(b"before", content_type="text/plain", key=key)

    async def breaks() -> AsyncIterator[bytes]:
        yield b"z" * 600_000
        raise ConnectionResetError("the browser went away")

    with pytest.raises(ConnectionResetError):
        await storage.put_stream(breaks(), content_type="text/plain", key=key)
    assert await storage.read(key) == b"before"
    with pytest.raises(ConnectionResetError):
        await storage.put_stream(breaks(), content_type="text/plain", key=storage.key_for("a", "b"))
    assert not await storage.exists(storage.key_for("a", "b"))


async def test_a_clean_storage_has_nothing_to_clean(storage: Storage) -> None:
    file = await storage.put(b"x", content_type="text/plain", suffix=".txt")
    assert await storage.clean(timedelta(0)) == 0
    assert await storage.read(file.key) == b"x"


async def test_an_empty_file_is_a_file(storage: Storage) -> None:
    file = await storage.put(b"", content_type="text/plain")
    assert await storage.read(file.key) == b""
    assert [chunk async for chunk in storage.stream(file.key)] == []


async def test_a_second_put_of_the_same_key_replaces_bytes_and_type(storage: Storage) -> None:
    key = storage.key_for("exports", "run-7")
    await storage.put(b"old", content_type="text/plain", key=key)
    file = await storage.put(b"newer", content_type="text/csv", key=key)
    assert file.key == key
    assert await storage.read(key) == b"newer"
    assert await storage.info(key) == file


def test_key_for_is_the_same_every_time_and_hides_what_it_was_made_of() -> None:
    key = key_for("certificates", "CERT-2026-0001", ".pdf")
    assert key == Storage.key_for("certificates", "CERT-2026-0001", ".pdf")
    assert key != key_for("certificates", "CERT-2026-0002", ".pdf")
    assert re.fullmatch(r"certificates/[0-9a-f]{64}\.pdf", key)
    for folder, unique, suffix in [("../x", "1", ""), ("", "1", ""), ("a", "", ""), ("a", "1", ".exe")]:
        with pytest.raises(InvalidKey):
            key_for(folder, unique, suffix)


async def test_delete_removes_and_may_be_done_twice(storage: Storage) -> None:
    file = await storage.put(b"x", content_type="text/plain", suffix=".txt")
    await storage.delete(file.key)
    await storage.delete(file.key)
    assert not await storage.exists(file.key)
    for call in (storage.read(file.key), storage.info(file.key), anext(aiter(storage.stream(file.key)))):
        with pytest.raises(StoredFileNotFound):
            await call


@pytest.mark.parametrize("key", HOSTILE_KEYS)
async def test_a_key_that_we_did_not_make_is_refused_everywhere(storage: Storage, key: str) -> None:
    calls = (
        storage.put(b"x", content_type="text/plain", key=key),
        storage.read(key),
        storage.info(key),
        storage.exists(key),
        storage.delete(key),
        storage.link(key, filename="x", expires_in=60),
        anext(aiter(storage.stream(key))),
    )
    for call in calls:
        with pytest.raises(InvalidKey):
            await call


@pytest.mark.parametrize("suffix", [".html", ".svg", ".exe", "pdf", ".PDF", "/../x", ".pdf/.."])
async def test_only_listed_suffixes_are_kept(storage: Storage, suffix: str) -> None:
    with pytest.raises(InvalidKey, match="suffix"):
        await storage.put(b"x", content_type="text/plain", suffix=suffix)


@pytest.mark.parametrize(
    "content_type", ["", "pdf", "text/plain\r\nSet-Cookie: a=b", "text/plain; ", "a/b/c"]
)
async def test_a_content_type_must_be_one(storage: Storage, content_type: str) -> None:
    with pytest.raises(ValueError, match="content type"):
        await storage.put(b"x", content_type=content_type)


async def test_readers_of_a_key_that_is_written_again_and_again_see_whole_files(storage: Storage) -> None:
    key = storage.key_for("reports", "weekly")
    versions = [bytes([number]) * 300_000 for number in range(12)]
    await storage.put(versions[0], content_type="text/plain", key=key)

    async def write() -> None:
        for version in versions:
            await storage.put(version, content_type="text/plain", key=key)

    async def read() -> None:
        for _ in range(15):
            assert await storage.read(key) in versions
            assert b"".join([chunk async for chunk in storage.stream(key)]) in versions

    await asyncio.gather(write(), write(), read(), read())
    assert await storage.read(key) == versions[-1]


async def test_a_link_leads_to_the_file_and_names_its_owner(storage: Storage) -> None:
    file = await storage.put(b"x", content_type="text/csv", suffix=".csv")
    url = urlsplit(await storage.link(file.key, filename="students.csv", expires_in=60, owner="7"))
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"https://school.example/files/{file.key}"
    link = SIGNER.check(file.key, dict(parse_qsl(url.query)))
    assert (link.key, link.filename, link.owner) == (file.key, "students.csv", "7")
