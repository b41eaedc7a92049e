"""`python -m benchmarks.kits.storage`: files put, read and linked to in a second, in a folder and a bucket.

Files of 20 kB, 20 at once, in a folder and in a bucket of a moto server in a process of its own (which is
Python, and slower than a real one); plain, and with the register of `Files` in SQLite; one stream of 200 MB
each way, with the memory that it took. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated

import httpx
import typer

from errands import Database, Keyring, Settings
from errands.kits.storage import Files, Storage, storage_from

BUCKET = "benchmark"
KEYS = {"s3_access_key_id": "AKIABENCH", "s3_secret_access_key": "not-a-secret"}
BLOCK = os.urandom(1_000_000)


def main(
    count: Annotated[int, typer.Option(min=20, help="Files of each measure.")] = 2000,
    size: Annotated[int, typer.Option(min=1, help="Bytes of a file.")] = 20_000,
    large: Annotated[int, typer.Option(min=1, help="MB of the stream.")] = 200,
) -> None:
    """Measure, print, and say it as JSON."""
    found: dict[str, dict[str, float]] = {}
    print(
        f"{'':10}{'put/s':>9}{'Files.put/s':>13}{'read/s':>9}{'link/s':>10}"
        f"{'MB/s in':>9}{'MB/s out':>10}{'MB more':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        address = _free_address()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", address.rpartition(":")[2]]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _make_bucket(address)
            for kind, url in (("folder", f"{folder}/files"), ("S3 (moto)", f"s3://{BUCKET}/files")):
                settings = Settings(
                    home=Path(folder),
                    secret_keys=Keyring.new_key(),
                    storage_url=url,
                    s3_endpoint=address,
                    **KEYS,
                )
                told = found[kind] = asyncio.run(_measure(settings, count, size, large))
                print(
                    f"{kind:10}{told['put']:>9,.0f}{told['files_put']:>13,.0f}{told['read']:>9,.0f}{told['link']:>10,.0f}"
                    f"{told['in']:>9,.0f}{told['out']:>10,.0f}{told['memory']:>9,.0f}"
                )
        finally:
            server.terminate()
            server.wait()
    print(json.dumps(found))


async def _measure(settings: Settings, count: int, size: int, large: int) -> dict[str, float]:
    storage: Storage = storage_from(settings)
    database = Database(settings.database_url)
    database.upgrade()
    files = Files(storage, database)
    data, keys = os.urandom(size), []

    async def put() -> None:
        keys.append((await storage.put(data, content_type="application/pdf", suffix=".pdf")).key)

    async def files_put() -> None:
        await files.put(data, content_type="application/pdf", suffix=".pdf", owner="7", referrer="a:1")

    async def read() -> None:
        await storage.read(keys[-1])

    async def link() -> None:
        await storage.link(keys[-1], filename="certificate.pdf", expires_in=3600)

    found = {
        "put": await _rate(put, count),
        "files_put": await _rate(files_put, count),
        "read": await _rate(read, count),
        "link": await _rate(link, count),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    file = await storage.put_stream(_blocks(large), content_type="application/zip", suffix=".zip")
    found["in"] = large / (time.perf_counter() - began)
    began = time.perf_counter()
    async for _ in storage.stream(file.key):
        pass
    found["out"] = large / (time.perf_counter() - began)
    found["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    await database.adispose()
    return found


async def _rate(one: Callable[[], Awaitable[None]], count: int) -> float:
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await one()

    await one()
    began = time.perf_counter()
    await asyncio.gather(*[some() for _ in range(20)])
    return count / (time.perf_counter() - began)


async def _blocks(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes):
        yield BLOCK


def _free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{found.getsockname()[1]}"


def _make_bucket(address: str) -> None:
    """Wait for the server, and make the bucket."""
    for _ in range(600):
        try:
            httpx.put(f"{address}/{BUCKET}").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the moto server does not answer")


if __name__ == "__main__":
    typer.run(main)
