"""A body as it streams in: unpacked, and never more of it than was allowed."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator

from errands.fetching.errors import FetchFailed, FetchRefused, TooLarge

CHUNK = 64 * 1024  # bytes that are unpacked at once, whatever they unpack to
_GZIP = 16 + zlib.MAX_WBITS


async def unpacked(raw: AsyncIterator[bytes], encoding: str, most: int) -> AsyncIterator[bytes]:
    """The bytes of a body whose Content-Encoding is `encoding`, in chunks.

    Raises:
        TooLarge: there are more than `most`, as they come or unpacked.
        FetchFailed: packed bytes that are broken, or end too early.
        FetchRefused: they are packed in a way that was not asked for.
    """
    if encoding in ("", "identity"):
        chunks = raw
    elif encoding in ("gzip", "x-gzip"):
        # What cannot be packed grows a little by packing.
        chunks = _gunzip(_bounded(raw, most + most // 100 + 1024))
    else:
        raise FetchRefused(f"the answer is packed with {encoding[:40]!r}, which was not asked for")
    async for chunk in _bounded(chunks, most, told=most):
        yield chunk


async def _bounded(chunks: AsyncIterator[bytes], most: int, told: int | None = None) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise TooLarge(f"there is more than the {told or most} bytes that are allowed")
        yield chunk


async def _gunzip(raw: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Members of gzip, one after the other, at most a chunk at a time: a thousandth of memory for a bomb."""
    member = zlib.decompressobj(_GZIP)
    begun = False
    try:
        async for data in raw:
            rest = data
            while rest:
                if member.eof:
                    if not rest.lstrip(b"\0"):  # padding, which gzip allows
                        break
                    member = zlib.decompressobj(_GZIP)
                begun = True
                chunk = member.decompress(rest, CHUNK)
                rest = member.unused_data if member.eof else member.unconsumed_tail
                if chunk:
                    yield chunk
            while not member.eof and (chunk := member.decompress(b"", CHUNK)):
                yield chunk
    except zlib.error as exc:
        raise FetchFailed(f"the answer is packed with gzip, and broken: {exc}") from exc
    if begun and not member.eof:
        raise FetchFailed("the answer is packed with gzip, and ends too early")
