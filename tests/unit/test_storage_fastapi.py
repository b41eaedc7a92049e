"""The route behind download links."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request

from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import FolderStorage, LinkSigner, StorageUnavailable, StoredFile, key_for
from errands.kits.storage.fake import MemoryStorage
from errands.kits.storage.fastapi import files_router

SIGNER = LinkSigner(b"k" * 32, "https://school.example")


def signed_in(request: Request) -> str | None:
    return request.headers.get("x-user")


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path, SIGNER)


@pytest.fixture
async def browser(storage: FolderStorage) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(files_router(storage, SIGNER, signed_in=signed_in))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="https://school.example"
    ) as client:
        yield client


async def test_a_good_link_downloads_the_file(browser: httpx.AsyncClient, storage: FolderStorage) -> None:
    data = b"a,b\r\n" * 200_000
    file = await storage.put(data, content_type="text/csv; charset=utf-8", suffix=".csv")
    url = await storage.link(file.key, filename="Schüler 王.csv", expires_in=60)
    answer = await browser.get(url)
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"Sch_ler _.csv\"; filename*=UTF-8''Sch%C3%BCler%20%E7%8E%8B.csv"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-store"
    head = await browser.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(data))


async def test_an_empty_file_downloads(browser: httpx.AsyncClient, storage: FolderStorage) -> None:
    file = await storage.put(b"", content_type="text/plain", suffix=".txt")
    answer = await browser.get(await storage.link(file.key, filename="a.txt", expires_in=60))
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_forged_expired_and_gone_are_told_apart(
    browser: httpx.AsyncClient, storage: FolderStorage, method: str
) -> None:
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        file = await storage.put(b"x", content_type="text/plain", suffix=".txt")
        url = await storage.link(file.key, filename="a.txt", expires_in=60)
        absent = await storage.link(key_for("a", "never put"), filename="a", expires_in=60)
        assert (await browser.request(method, url + "x")).status_code == 403
        assert (await browser.request(method, url.split("?")[0])).status_code == 403
        assert (await browser.request(method, absent)).status_code == 404
        now.advance(61)
        assert (await browser.request(method, url)).status_code == 410
        now.advance(-61)
        await storage.delete(file.key)
        assert (await browser.request(method, url)).status_code == 404


@pytest.mark.parametrize(
    "path", ["/files/", "/files/../../etc/passwd", "/files/%2e%2e/%2e%2e/etc/passwd", "/files//etc/passwd"]
)
async def test_a_path_without_our_signature_reaches_no_file(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(path, params={"name": "a", "expires": "9999999999", "signature": "A" * 43})
    assert answer.status_code in {403, 404}
    assert set(answer.json()) == {"detail"}


async def test_a_link_with_an_owner_serves_that_owner_alone(
    browser: httpx.AsyncClient, storage: FolderStorage
) -> None:
    file = await storage.put(b"x", content_type="text/plain", suffix=".txt")
    url = await storage.link(file.key, filename="a.txt", expires_in=60, owner="7")
    assert (await browser.get(url, headers={"x-user": "7"})).status_code == 200
    assert (await browser.get(url, headers={"x-user": "8"})).status_code == 403
    assert (await browser.get(url)).status_code == 403


async def test_a_storage_that_does_not_answer_is_not_taken_for_a_file_that_is_gone() -> None:
    class Away(MemoryStorage):
        async def info(self, key: str) -> StoredFile:
            raise StorageUnavailable("slow down", retry_after=16.2)

    storage = Away(SIGNER)
    app = FastAPI()
    app.include_router(files_router(storage, SIGNER))
    url = await storage.link(key_for("a", "b"), filename="a.txt", expires_in=60)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        answer = await client.get(url)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "17")


async def test_without_a_sign_in_whoever_holds_the_link_is_served(storage: FolderStorage) -> None:
    app = FastAPI()
    app.include_router(files_router(storage, SIGNER))
    file = await storage.put(b"x", content_type="text/plain", suffix=".txt")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        url = await storage.link(file.key, filename="a.txt", expires_in=60, owner="7")
        assert (await client.get(url)).content == b"x"
