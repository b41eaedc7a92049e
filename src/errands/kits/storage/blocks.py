"""Streams of bytes, counted and taken in pieces of one size."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from errands.kits.storage.errors import FileTooLarge

BLOCK = 256 * 1024
_IN_MEMORY = 4 * 1024 * 1024


async def blocks(chunks: AsyncIterable[bytes], limit: int | None = None) -> AsyncIterator[bytes]:
    """`chunks` in pieces of 256 KiB or a little more, the last one shorter.

    Raises:
        FileTooLarge: there are more than `limit` bytes; said as soon as one is too many.
        ValueError: `limit` is negative.
    """
    if limit is not None and limit < 0:
        raise ValueError(f"limit={limit}: give the bytes that a stream may have, 0 or more")
    gathered, size = bytearray(), 0
    async for chunk in chunks:
        size += len(chunk)
        if limit is not None and size > limit:
            raise FileTooLarge(f"the stream has more than the {limit:,} bytes that it may have")
        gathered += chunk
        if len(gathered) >= BLOCK:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


@dataclass(frozen=True, slots=True)
class Measured:
    """A file that is open at its beginning, its size in bytes and its SHA-256 in hex."""

    file: BinaryIO
    size: int
    sha256: str


@asynccontextmanager
async def measured(
    data: bytes | Path | AsyncIterable[bytes], limit: int | None = None
) -> AsyncIterator[Measured]:
    """`data` with size and checksum known before the first byte is sent on.

    A stream is kept on the way, up to 4 MiB of it in memory and the rest in a file that has no name, so that
    it goes away with the process.

    Raises:
        FileTooLarge: a stream has more than `limit` bytes.
        OSError: the local file can't be read, or there is no room for what a stream brings.
    """
    if isinstance(data, Path):
        with await asyncio.to_thread(data.open, "rb") as file:
            yield await asyncio.to_thread(_measure, file)
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
        if isinstance(data, bytes):
            data = _once(data)
        async for block in blocks(data, limit):
            await asyncio.to_thread(spool.write, block)
        yield await asyncio.to_thread(_measure, spool)


def _measure(file: Any) -> Measured:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256")
    size = file.tell()
    file.seek(0)
    return Measured(file, size, digest.hexdigest())


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
