"""Files in a bucket: what the server sees, links, errors, memory, processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import httpx
import pytest

import clouds
from errands import Discard, Keyring
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import (
    LinkSigner,
    S3Storage,
    StorageRefused,
    StorageUnavailable,
    StoredFileNotFound,
    key_for,
)
from errands.kits.storage.sigv4 import Credentials, presign

SIGNER = LinkSigner(b"k" * 32, "https://school.example")
CREDENTIALS = Credentials(clouds.KEYS["aws_access_key_id"], clouds.KEYS["aws_secret_access_key"])
KEY = key_for("reports", "one", ".pdf")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with clouds.s3_server() as url:
        yield url


@pytest.fixture
def storage(url: str) -> S3Storage:
    return S3Storage(clouds.BUCKET, "school/files", signer=SIGNER, endpoint=url, credentials=CREDENTIALS)


async def test_another_client_sees_the_type_and_the_checksum(storage: S3Storage, url: str) -> None:
    file = await storage.put(b"%PDF", content_type="application/pdf", key=KEY)
    found = clouds.s3_client(url).get_object(Bucket=clouds.BUCKET, Key=f"school/files/{KEY}")
    assert (found["ContentType"], found["Metadata"]) == ("application/pdf", {"sha256": file.sha256})
    assert found["Body"].read() == b"%PDF"


async def test_a_large_file_goes_in_parts_and_is_whole(storage: S3Storage, url: str) -> None:
    block = os.urandom(1_000_000)

    async def many() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield block

    file = await storage.put_stream(many(), content_type="application/zip", suffix=".zip")
    found = clouds.s3_client(url).head_object(Bucket=clouds.BUCKET, Key=f"school/files/{file.key}")
    assert found["ETag"].endswith('-3"')  # three parts, as S3 tells it
    assert found["Metadata"] == {"sha256": file.sha256}
    assert await storage.read(file.key) == block * 20


async def test_a_link_downloads_from_the_bucket_under_its_name(storage: S3Storage) -> None:
    await storage.put(b"%PDF", content_type="application/pdf", key=KEY)
    link = await storage.link(KEY, filename="Schüler & 王.pdf", expires_in=60)
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(link)
    assert (answer.status_code, answer.content) == (200, b"%PDF")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert "%E7%8E%8B.pdf" in answer.headers["content-disposition"]


@pytest.mark.parametrize("token", [None, "a/token+with=signs"])
def test_the_signature_is_the_one_of_amazons_own_client(token: str | None) -> None:
    address = "https://s3.eu-central-1.amazonaws.com/bucket/a b/ü.pdf"
    query = {"response-content-disposition": "attachment; filename=\"a b.pdf\"; filename*=UTF-8''%C3%BC.pdf"}
    now = datetime(2026, 3, 5, 11, 7, 9, tzinfo=UTC)
    ours = presign(
        address,
        Credentials("AKIA", "secret", token),
        region="eu-central-1",
        expires_in=900,
        now=now,
        query=query,
    )
    request = botocore.awsrequest.AWSRequest(
        "GET", "https://s3.eu-central-1.amazonaws.com/bucket/a%20b/%C3%BC.pdf"
    )
    request.params = query
    credentials = botocore.credentials.Credentials("AKIA", "secret", token)
    signer = botocore.auth.S3SigV4QueryAuth(credentials, "s3", "eu-central-1", expires=900)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: now.replace(tzinfo=None))
        signer.add_auth(request)
    theirs = urlsplit(request.url)
    assert urlsplit(ours)[:3] == theirs[:3]
    assert dict(parse_qsl(urlsplit(ours).query)) == dict(parse_qsl(theirs.query))


async def test_links_that_s3_cannot_hold_lead_to_the_application(storage: S3Storage, url: str) -> None:
    async def host(**options: object) -> str:
        given = {"filename": "a.pdf", "expires_in": 60.0, **options}
        return urlsplit(await storage.link(KEY, **given)).netloc  # type: ignore[arg-type]

    assert await host() == urlsplit(url).netloc
    assert await host(expires_in=7 * 24 * 3600) == urlsplit(url).netloc
    assert await host(expires_in=7 * 24 * 3600 + 1) == "school.example"
    assert await host(owner="7") == "school.example"
    by_role = S3Storage(clouds.BUCKET, signer=SIGNER, endpoint=url)
    assert "school.example" in await by_role.link(KEY, filename="a.pdf", expires_in=60)
    with pytest.raises(ValueError, match="expires_in=0"):
        await storage.link(KEY, filename="a.pdf", expires_in=0)


async def test_browsers_are_sent_to_the_public_address(url: str) -> None:
    storage = S3Storage(
        clouds.BUCKET,
        signer=SIGNER,
        endpoint=url,
        public_endpoint="https://files.school.example/",
        credentials=CREDENTIALS,
    )
    with clock.use(FakeClock()):
        link = urlsplit(await storage.link(KEY, filename="a.pdf", expires_in=60))
    assert (
        f"{link.scheme}://{link.netloc}{link.path}" == f"https://files.school.example/{clouds.BUCKET}/{KEY}"
    )
    assert dict(parse_qsl(link.query))["X-Amz-Date"] == "20260101T120000Z"


async def test_a_missing_bucket_is_told_apart_from_a_missing_file(storage: S3Storage, url: str) -> None:
    nowhere = S3Storage("no-such-bucket", signer=SIGNER, endpoint=url, credentials=CREDENTIALS)
    with pytest.raises(StorageRefused, match="no bucket no-such-bucket") as refused:
        await nowhere.put(b"x", content_type="text/plain")
    assert isinstance(refused.value, Discard)
    with pytest.raises(StorageRefused, match="no bucket"):
        await nowhere.read(KEY)
    with pytest.raises(StoredFileNotFound, match="no stored file"):
        await storage.read(key_for("a", "never put"))


class Answers:
    """A server that gives one answer to every request, and counts them."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.count = answer, 0

    async def serve(self, reader: object, writer: object) -> None:

        assert isinstance(reader, asyncio.StreamReader)
        assert isinstance(writer, asyncio.StreamWriter)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length: " in head:
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        self.count += 1
        if self.answer:
            writer.write(self.answer)
        writer.close()


def answer(status: str, body: str = "<Error/>") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("given", "kind", "asked"),
    [
        (answer("503 Slow Down", "<Error><Code>SlowDown</Code></Error>"), StorageUnavailable, 3),
        (answer("500 Internal Server Error"), StorageUnavailable, 3),
        (answer("429 Too Many Requests"), StorageUnavailable, None),
        (b"", StorageUnavailable, None),  # the connection ends without an answer
        (answer("403 Forbidden", "<Error><Code>AccessDenied</Code></Error>"), StorageRefused, 1),
        (answer("400 Bad Request", "<Error><Code>EntityTooLarge</Code></Error>"), StorageRefused, 1),
    ],
)
async def test_what_may_pass_is_told_from_what_will_not(
    given: bytes, kind: type[Exception], asked: int | None
) -> None:

    answers = Answers(given)
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    async with server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        storage = S3Storage(
            clouds.BUCKET, signer=SIGNER, endpoint=endpoint, credentials=CREDENTIALS, retries=2, timeout=5
        )
        with pytest.raises(kind) as raised:
            await storage.put(b"x", content_type="text/plain", key=KEY)
    assert clouds.BUCKET in str(raised.value)
    assert CREDENTIALS.secret_access_key not in str(raised.value)
    assert asked is None or answers.count == asked


async def test_nobody_there_and_one_that_never_answers() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        storage = S3Storage(
            clouds.BUCKET, signer=SIGNER, endpoint=endpoint, credentials=CREDENTIALS, retries=0
        )
        with pytest.raises(StorageUnavailable, match="did not answer"):
            await storage.read(KEY)
        held.listen()
        slow = S3Storage(
            clouds.BUCKET, signer=SIGNER, endpoint=endpoint, credentials=CREDENTIALS, retries=0, timeout=0.3
        )
        with pytest.raises(StorageUnavailable, match="did not answer"):
            await slow.read(KEY)


STREAMER = """
import asyncio, hashlib, os, resource
from errands import Settings
from errands.kits.storage import storage_from

async def many(block):
    for _ in range(100):
        yield block

async def main():
    storage = storage_from(Settings())
    small = await storage.put_stream(many(b"x"), content_type="text/plain")
    await storage.read(small.key)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    large = many(os.urandom(1_500_000))
    file = await storage.put_stream(large, content_type="application/zip", suffix=".zip")
    digest = hashlib.sha256()
    async for chunk in storage.stream(file.key):
        digest.update(chunk)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(file.size, digest.hexdigest() == file.sha256, grown)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_large_stream_takes_little_memory_both_ways(kind: str, url: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "ERRANDS_HOME": str(tmp_path),
        "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_STORAGE_URL": f"s3://{clouds.BUCKET}/large" if kind == "s3" else str(tmp_path / "volume"),
        "ERRANDS_S3_ENDPOINT": url,
        "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key_id,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_access_key,
    }
    done = subprocess.run([sys.executable, "-c", STREAMER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, same, grown = done.stdout.split()
    assert (size, same) == ("150000000", "True")
    assert int(grown) < 75_000, f"{grown} KiB more for a file of 150 MB"


def _read_in_child(storage: S3Storage, told: object) -> None:

    try:
        asyncio.run(storage.read(KEY))
    except StorageRefused as exc:
        told.put(str(exc))  # type: ignore[attr-defined]


async def test_a_child_that_was_forked_too_late_is_told_so_and_does_not_hang(storage: S3Storage) -> None:
    await storage.put(b"x", content_type="application/pdf", key=KEY)
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()
    child = fork.Process(target=_read_in_child, args=(storage, told))
    child.start()
    assert "after the fork" in told.get(timeout=30)
    child.join(30)
    assert child.exitcode == 0
